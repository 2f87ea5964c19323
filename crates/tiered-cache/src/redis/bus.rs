//! The bus in Redis: a stream that every replica reads from its own position, on a connection of its own.
//!
//! Every invalidation carries a sequence number that Redis counts up. Before each read the last number given out
//! is asked for; after it, all up to that number must have been seen, one after the other. Whatever went missing,
//! trimmed, flushed, lost in a failover, shows as a hole.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadReply};
use redis::{FromRedisValue, Script, Value};
use tokio::time::Instant;

use super::connection::Backoff;
use super::remote::{DataSet, bus_keys, generation};
use super::{Dialer, Redis};
use crate::RemoteError;
use crate::remote::{Batch, Bus, Gap, Notice};

const BLOCK_MS: usize = 100;
/// A read that takes longer lost its connection. Below half the fence, so that one may fail.
const READ_TIMEOUT: Duration = Duration::from_millis(450);
const COUNT: usize = 1000;

static JOIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/join.lua")));

pub(crate) struct RedisBus {
    dialer: Dialer,
    keys: [String; 2],
    /// With the id of the server's run.
    connection: Option<(MultiplexedConnection, String)>,
    position: Option<Position>,
    data_set: DataSet,
    backoff: Backoff,
}

struct Position {
    server: String,
    data_set: u64,
    sequence: u64,
    last: String,
    /// Nothing was read since the end was found: the next read shall not wait, since the fence waits for it.
    joined: bool,
}

/// The state of the log in Redis: id of the data set, sequence and stream id of its end.
type End = (Option<u64>, Option<u64>, Option<String>);

impl RedisBus {
    pub(crate) fn new(redis: &Redis, namespace: &str, data_set: DataSet) -> Self {
        let (dialer, keys) = (redis.shared.dialer.clone(), bus_keys(namespace));
        Self { dialer, keys, connection: None, position: None, data_set, backoff: Backoff::new() }
    }

    /// The connection and who answers there, made anew if need be.
    async fn connect(&mut self) -> Result<(MultiplexedConnection, String), RemoteError> {
        if let Some(connected) = &self.connection {
            return Ok(connected.clone());
        }
        let made = self.dialer.connect().await;
        if made.is_err() {
            self.backoff.wait().await;
        }
        let mut connection = made?;
        let mut info = redis::cmd("INFO");
        let info: String = within(info.arg("server").query_async(&mut connection)).await?;
        let server = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
        self.backoff = Backoff::new();
        Ok(self.connection.insert((connection, server.to_owned())).clone())
    }

    async fn read(&mut self) -> Result<Batch, RemoteError> {
        let (mut connection, server) = self.connect().await?;
        let gap = match &mut self.position {
            None => Gap::Start,
            Some(position) if position.server != server => Gap::Failover,
            Some(position) => {
                let sent_at = Instant::now();
                let mut both = redis::pipe();
                both.cmd("HMGET").arg(&self.keys[1]).arg(&["id", "sequence", "last"]);
                let read = both.cmd("XREAD");
                if !std::mem::take(&mut position.joined) {
                    read.arg("BLOCK").arg(BLOCK_MS);
                }
                read.arg("COUNT").arg(COUNT).arg("STREAMS").arg(&self.keys[0]).arg(&position.last);
                let (end, read): (End, Option<StreamReadReply>) = within(both.query_async(&mut connection)).await?;
                let items = read.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect();
                match position.advance(&end, items) {
                    Ok((notices, caught_up)) => return Ok(Batch { sent_at, notices, gap: None, caught_up }),
                    Err(gap) => gap,
                }
            }
        };
        self.join(&mut connection, server, gap).await
    }

    /// Goes to the end of the log. What came before is made up for by forgetting everything.
    async fn join(&mut self, to: &mut MultiplexedConnection, server: String, gap: Gap) -> Result<Batch, RemoteError> {
        let sent_at = Instant::now();
        let suspect = self.position.as_ref().filter(|_| gap == Gap::Failover).map_or(0, |position| position.data_set);
        let mut join = JOIN.key(&self.keys[1]);
        join.arg(&server).arg(generation()).arg(suspect);
        let (data_set, sequence, last): End = within(join.invoke_async(to)).await?;
        let (data_set, last) = (data_set.unwrap_or(0), last.unwrap_or_else(|| "0-0".to_owned()));
        // Before anything is forgotten: what is read in L2 after that is of this data set.
        self.data_set.store(data_set, Ordering::SeqCst);
        self.position = Some(Position { server, data_set, sequence: sequence.unwrap_or(0), last, joined: true });
        Ok(Batch { sent_at, notices: Vec::new(), gap: Some(gap), caught_up: true })
    }
}

impl Position {
    /// Applies one read; an error says that something is missing.
    fn advance(&mut self, end: &End, items: Vec<StreamId>) -> Result<(Vec<Notice>, bool), Gap> {
        if end.0 != Some(self.data_set) {
            return Err(Gap::Reset);
        }
        let promised = end.1.unwrap_or(0);
        if promised < self.sequence {
            return Err(Gap::Failover);
        }
        let more = items.len() >= COUNT;
        let mut notices = Vec::with_capacity(items.len());
        for item in items {
            let (notice, sequence) = notice(&item).ok_or(Gap::Trimmed)?;
            if sequence != self.sequence + 1 {
                return Err(Gap::Trimmed);
            }
            self.sequence = sequence;
            self.last = item.id;
            notices.push(notice);
        }
        if self.sequence < promised && !more {
            return Err(Gap::Trimmed);
        }
        Ok((notices, !more))
    }
}

fn notice(item: &StreamId) -> Option<(Notice, u64)> {
    let hashes = match item.map.get("h")? {
        Value::BulkString(bytes) => crate::outbox::decode(bytes).into(),
        _ => return None,
    };
    let number = |field| u64::from_redis_value_ref(item.map.get(field)?).ok();
    // Replicas of another version may leave it out.
    let cause = item.map.get("c").and_then(|text| String::from_redis_value_ref(text).ok()).unwrap_or_default();
    Some((Notice { hashes, origin: number("o")?, cause }, number("s")?))
}

async fn within<T>(answer: impl Future<Output = redis::RedisResult<T>>) -> Result<T, RemoteError> {
    Ok(tokio::time::timeout(READ_TIMEOUT, answer).await??)
}

#[async_trait]
impl Bus for RedisBus {
    async fn next(&mut self) -> Result<Batch, RemoteError> {
        let batch = self.read().await;
        if batch.is_err() {
            self.connection = None;
        }
        batch
    }
}
