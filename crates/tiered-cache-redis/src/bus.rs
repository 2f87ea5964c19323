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
use tiered_cache::{Batch, Bus, Notice, Reached, RemoteError};
use tokio::time::Instant;

use crate::changes;
use crate::connection::{Backoff, Dialer};
use crate::error::failed;
use crate::remote::RedisRemote;
use crate::values::{Keys, entry_id};

const BLOCK_MS: usize = 100;
/// A read that takes longer lost its connection. Below half the fence, so that one may fail.
const READ_TIMEOUT: Duration = Duration::from_millis(450);
const COUNT: usize = 1000;

pub(crate) struct RedisBus {
    dialer: Dialer,
    keys: Arc<ArcSwap<Keys>>,
    connection: Option<MultiplexedConnection>,
    cursor: Option<Cursor>,
    backoff: Backoff,
}

struct Cursor {
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
    pub(crate) fn new(dialer: &Dialer, remote: &RedisRemote) -> Self {
        Self { dialer: dialer.clone(), keys: remote.keys(), connection: None, cursor: None, backoff: Backoff::new() }
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
        if let Some(cursor) = &mut self.cursor {
            cursor.unproven = true;
        }
        Ok(self.connection.insert(made).clone())
    }

    async fn read(&mut self) -> Result<Batch, RemoteError> {
        let mut connection = self.connect().await?;
        let keys = self.keys.load_full();
        if let Some(cursor) = &mut self.cursor
            && Arc::ptr_eq(&cursor.keys, &keys)
            && let Some(batch) = cursor.read(&mut connection).await?
        {
            return Ok(batch);
        }
        self.join(&mut connection, keys).await
    }

    /// Goes to the end of the stream. What came before is made up for by the log.
    async fn join(&mut self, to: &mut MultiplexedConnection, keys: Arc<Keys>) -> Result<Batch, RemoteError> {
        let sent_at = Instant::now();
        // Not as a transaction: redis 1.8.1's connection panics when Redis refuses to begin one. What is added between the
        // two is known by its own number.
        let mut both = redis::pipe();
        both.cmd("HMGET").arg(keys.state()).arg(&["id", "sequence"]);
        // The stream itself knows its end, also where the state was lost.
        both.cmd("XREVRANGE").arg(keys.bus()).arg("+").arg("-").arg("COUNT").arg(1);
        type Ends = (End, StreamRangeReply);
        let ((id, sequence), newest): Ends = within(both.query_async(to)).await?;
        let newest = newest.ids.into_iter().next();
        let number = newest.as_ref().and_then(|newest| u64::from_redis_value_ref(newest.map.get("s")?).ok());
        let last = newest.map_or_else(|| "0-0".to_owned(), |newest| newest.id);
        let sequence = sequence.max(number).unwrap_or(0);
        let cursor = Cursor { keys, id, sequence, last, joined: true, unproven: false };
        let reached = self.cursor.insert(cursor).reached();
        Ok(Batch { sent_at, notices: Vec::new(), gap: true, caught_up: true, reached })
    }
}

impl Cursor {
    /// Reads on; `None` says that something is missing.
    async fn read(&mut self, connection: &mut MultiplexedConnection) -> Result<Option<Batch>, RemoteError> {
        if self.unproven && self.last != "0-0" {
            let mut there = redis::cmd("XRANGE");
            there.arg(self.keys.bus()).arg(&self.last).arg(&self.last);
            let there: StreamRangeReply = within(there.query_async(connection)).await?;
            if there.ids.is_empty() {
                return Ok(None);
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
        let items: Vec<StreamId> = read.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect();
        let caught_up = items.len() < COUNT;
        let notices = self.advance(&end, items, caught_up);
        let reached = self.reached();
        Ok(notices.map(|notices| Batch { sent_at, notices, gap: false, caught_up, reached }))
    }

    fn reached(&self) -> Reached {
        Reached { sequence: self.sequence, last: entry_id(&self.last) }
    }

    /// Applies one read; `None` says that something is missing.
    fn advance(&mut self, (id, sequence): &End, items: Vec<StreamId>, caught_up: bool) -> Option<Vec<Notice>> {
        let promised = sequence.unwrap_or(0);
        // Another data set, or an older state of it.
        if *id != self.id || promised < self.sequence {
            return None;
        }
        let mut notices = Vec::with_capacity(items.len());
        for item in items {
            let (notice, sequence) = notice(&item)?;
            if sequence != self.sequence + 1 {
                return None;
            }
            self.sequence = sequence;
            self.last = item.id;
            notices.push(notice);
        }
        (self.sequence >= promised || !caught_up).then_some(notices)
    }
}

fn notice(item: &StreamId) -> Option<(Notice, u64)> {
    let changes = match item.map.get("c")? {
        Value::BulkString(bytes) => changes::decode(bytes)?.into(),
        _ => return None,
    };
    let number = |field| u64::from_redis_value_ref(item.map.get(field)?).ok();
    let cause = item.map.get("l").and_then(|text| String::from_redis_value_ref(text).ok()).unwrap_or_default();
    Some((Notice { changes, origin: number("o")?, cause }, number("s")?))
}

async fn within<T>(answer: impl Future<Output = redis::RedisResult<T>>) -> Result<T, RemoteError> {
    tokio::time::timeout(READ_TIMEOUT, answer).await?.map_err(failed)
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
