//! The bus in Redis: a stream that every replica reads from its own position, on a connection of its own.
//!
//! Every entry carries a sequence number that Redis counts up. Before each read the last number given out is asked for;
//! after it, all up to that number must have been seen, one after the other. Whatever went missing, trimmed, flushed,
//! lost in a failover, shows as a hole, or by the last entry that was seen being gone when a new connection is made.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{FromRedisValue, Value};
use tokio::time::Instant;

use super::connection::Backoff;
use super::values::{Keys, entry_id};
use super::{Dialer, Redis, RedisRemote};
use crate::RemoteError;
use crate::log;
use crate::remote::{Batch, Bus, Gap, Notice, Reached};

const BLOCK_MS: usize = 100;
/// A read that takes longer lost its connection. Below half the fence, so that one may fail.
const READ_TIMEOUT: Duration = Duration::from_millis(450);
const COUNT: usize = 1000;

pub(crate) struct RedisBus {
    dialer: Dialer,
    keys: Arc<ArcSwap<Keys>>,
    connection: Option<MultiplexedConnection>,
    position: Option<Position>,
    backoff: Backoff,
}

struct Position {
    /// The keys of another log are another bus.
    keys: Arc<Keys>,
    /// The id of the state, whatever stands there.
    id: Option<Vec<u8>>,
    sequence: u64,
    last: String,
    /// Nothing was read since the end was found: the next read shall not wait.
    joined: bool,
    /// The connection is new: the last entry that was seen must still be there.
    unproven: bool,
}

/// The state of the stream: id, and sequence of its end.
type End = (Option<Vec<u8>>, Option<u64>);

impl RedisBus {
    pub(crate) fn new(redis: &Redis, remote: &RedisRemote) -> Self {
        let dialer = redis.shared.dialer.clone();
        Self { dialer, keys: remote.keys(), connection: None, position: None, backoff: Backoff::new() }
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, RemoteError> {
        if let Some(connected) = &self.connection {
            return Ok(connected.clone());
        }
        let made = self.dialer.connect().await;
        if made.is_err() {
            self.backoff.wait().await;
        }
        let made = made?;
        self.backoff = Backoff::new();
        if let Some(position) = &mut self.position {
            position.unproven = true;
        }
        Ok(self.connection.insert(made).clone())
    }

    async fn read(&mut self) -> Result<Batch, RemoteError> {
        let mut connection = self.connect().await?;
        let keys = self.keys.load_full();
        let gap = match &mut self.position {
            None => Gap::Start,
            Some(position) if !Arc::ptr_eq(&position.keys, &keys) => Gap::Reset,
            Some(position) => match position.read(&mut connection).await? {
                Ok(batch) => return Ok(batch),
                Err(gap) => gap,
            },
        };
        self.join(&mut connection, keys, gap).await
    }

    /// Goes to the end of the stream. What came before is made up for by the log.
    async fn join(&mut self, to: &mut MultiplexedConnection, keys: Arc<Keys>, gap: Gap) -> Result<Batch, RemoteError> {
        let sent_at = Instant::now();
        let mut both = redis::pipe();
        both.atomic().cmd("HMGET").arg(keys.state()).arg(&["id", "sequence"]);
        // The stream itself knows its end, also where the state was lost.
        both.cmd("XREVRANGE").arg(keys.bus()).arg("+").arg("-").arg("COUNT").arg(1);
        type Ends = (End, StreamRangeReply);
        let ((id, sequence), newest): Ends = within(both.query_async(to)).await?;
        let last = newest.ids.into_iter().next().map_or_else(|| "0-0".to_owned(), |newest| newest.id);
        let sequence = sequence.unwrap_or(0);
        let position = Position { keys, id, sequence, last, joined: true, unproven: false };
        let reached = self.position.insert(position).reached();
        Ok(Batch { sent_at, notices: Vec::new(), gap: Some(gap), caught_up: true, reached })
    }
}

impl Position {
    async fn read(&mut self, connection: &mut MultiplexedConnection) -> Result<Result<Batch, Gap>, RemoteError> {
        if self.unproven && self.last != "0-0" {
            let mut there = redis::cmd("XRANGE");
            there.arg(self.keys.bus()).arg(&self.last).arg(&self.last);
            let there: StreamRangeReply = within(there.query_async(connection)).await?;
            if there.ids.is_empty() {
                return Ok(Err(Gap::Failover));
            }
        }
        self.unproven = false;
        let sent_at = Instant::now();
        let mut both = redis::pipe();
        both.cmd("HMGET").arg(self.keys.state()).arg(&["id", "sequence"]);
        let read = both.cmd("XREAD");
        if !std::mem::take(&mut self.joined) {
            read.arg("BLOCK").arg(BLOCK_MS);
        }
        read.arg("COUNT").arg(COUNT).arg("STREAMS").arg(self.keys.bus()).arg(&self.last);
        let (end, read): (End, Option<StreamReadReply>) = within(both.query_async(connection)).await?;
        let items = read.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect();
        let advanced = self.advance(&end, items);
        let reached = self.reached();
        Ok(advanced.map(|(notices, caught_up)| Batch { sent_at, notices, gap: None, caught_up, reached }))
    }

    fn reached(&self) -> Reached {
        Reached { sequence: self.sequence, last: entry_id(&self.last) }
    }

    /// Applies one read; an error says that something is missing.
    fn advance(&mut self, end: &End, items: Vec<StreamId>) -> Result<(Vec<Notice>, bool), Gap> {
        if end.0 != self.id {
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
    let changes = match item.map.get("c")? {
        Value::BulkString(bytes) => log::decode(bytes)?.into(),
        _ => return None,
    };
    let number = |field| u64::from_redis_value_ref(item.map.get(field)?).ok();
    let cause = item.map.get("l").and_then(|text| String::from_redis_value_ref(text).ok()).unwrap_or_default();
    Some((Notice { changes, origin: number("o")?, cause }, number("s")?))
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
