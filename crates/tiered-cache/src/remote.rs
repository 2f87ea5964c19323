//! What the cache asks of the tier that all replicas share, so that tests can stand in for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::RemoteError;

/// Names a lease or a write, drawn at random.
pub type Token = u64;

/// Where a value lives in the shared tier: one place per key, one field per schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// [`CacheKey::hash`](crate::CacheKey::hash).
    pub hash: u128,
    /// [`Policy::schema`](crate::Policy::schema).
    pub schema: u32,
}

/// A stored value.
#[derive(Debug, Clone)]
pub struct Found {
    /// The encoded entry.
    pub bytes: Bytes,
    /// When it was stored, by the shared tier's clock, in milliseconds; tells one value from the next.
    pub stamp: u64,
    /// Time since then, by the same clock.
    pub age: Duration,
}

/// What the shared tier knows of a key beside its value, for judging copies kept elsewhere (L3).
#[derive(Debug, Clone, Default)]
pub struct Mark {
    /// Replaced by every invalidation; 0 when unknown, and then no copy may be trusted.
    pub generation: u64,
    /// No older version may be kept.
    pub floor: u64,
    /// The shared tier's clock, in milliseconds.
    pub now: u64,
}

/// The answer to a request for a lease.
#[derive(Debug, Clone)]
pub enum Acquired {
    /// Load, then fill with the token.
    Granted(Mark),
    /// Another replica loads.
    Held,
    /// A write is under way: load, but store nowhere.
    Blocked,
    /// There is a newer value than the one that was known.
    Found(Found),
}

/// What became of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// Stored; copies elsewhere carry this generation.
    Stored {
        /// See [`Mark::generation`].
        generation: u64,
        /// When, by the shared tier's clock.
        stamp: u64,
    },
    /// The lease had ended: an invalidation, or its time.
    Lost,
    /// A newer version is known.
    Older,
}

/// A value to store.
#[derive(Debug, Clone)]
pub struct Fill {
    /// The encoded entry.
    pub bytes: Bytes,
    /// Its version; 0: none.
    pub version: u64,
    /// When it ends, fail-safe included.
    pub life: Duration,
}

/// An invalidation, or half of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the commit: remove, and refuse fills until the write is done or this long has passed.
    Block {
        /// The write.
        write: Token,
        /// Outlives the longest possible write.
        life: Duration,
    },
    /// After the commit: remove again and lift the write's own block.
    Done {
        /// The write; 0 when there was no block.
        write: Token,
        /// The committed version; 0: unknown.
        version: u64,
    },
}

/// The tier that all replicas share.
#[async_trait]
pub trait Remote: Send + Sync + 'static {
    /// Reads a value.
    async fn get(&self, place: Place) -> Result<Option<Found>, RemoteError>;
    /// Asks for the lease on a key, unless there is a value with another stamp than `known`.
    async fn acquire(&self, place: Place, token: Token, known: u64) -> Result<Acquired, RemoteError>;
    /// Prolongs a lease; false when it was lost.
    async fn renew(&self, place: Place, token: Token) -> Result<bool, RemoteError>;
    /// Stores a value and ends the lease, if it still holds.
    async fn fill(&self, place: Place, token: Token, fill: Fill) -> Result<Filled, RemoteError>;
    /// Ends a lease without storing.
    async fn release(&self, place: Place, token: Token) -> Result<(), RemoteError>;
    /// Removes values, breaks leases, and tells every replica.
    async fn invalidate(&self, notice: &Notice, phase: Phase) -> Result<(), RemoteError>;
    /// A sign of life.
    async fn ping(&self) -> Result<(), RemoteError>;
}

/// Does an operation of the shared tier in a client's span.
pub(crate) async fn traced<T>(
    op: &'static str,
    cache: Option<&'static str>,
    work: impl Future<Output = Result<T, RemoteError>>,
) -> Result<T, RemoteError> {
    // Names of spans are fixed where they are made.
    macro_rules! span {
        ($name:literal) => {
            tracing::info_span!(target: "tiered_cache", $name, otel.kind = "client", otel.status_code = Empty,
                db.system.name = "redis", db.operation.name = op, error.type = Empty, cache)
        };
    }
    let span = match op {
        "fill" => span!("cache_set"),
        "block" | "done" => span!("cache_invalidate"),
        _ => span!("cache_get"),
    };
    let outcome = work.instrument(span.clone()).await;
    if let Err(error) = &outcome {
        let kind = if matches!(error, RemoteError::Timeout) { "timeout" } else { "_OTHER" };
        span.record("otel.status_code", "ERROR").record("error.type", kind);
    }
    outcome
}

/// What one read of the bus brought.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Just before the read was sent: every invalidation that had been answered by then is in this batch or an earlier one.
    pub sent_at: Instant,
    /// The invalidations, in order.
    pub notices: Vec<Notice>,
    /// Some invalidations can't be had any more, or none were had yet.
    pub gap: Option<Gap>,
    /// False while there is more to read.
    pub caught_up: bool,
}

/// One invalidation as every replica sees it.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The keys.
    pub hashes: Arc<[u128]>,
    /// The replica that invalidated.
    pub origin: u64,
    /// The span that it did so in, as [`Builder::links`](crate::Builder::links) named it; empty: none.
    pub cause: String,
}

/// Why the bus may have lost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gap {
    /// The first read.
    Start,
    /// Entries were trimmed before they were read.
    Trimmed,
    /// The data set is another one: flushed, restarted empty.
    Reset,
    /// Another server answers: restart or failover.
    Failover,
}

impl Gap {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Trimmed => "trimmed",
            Self::Reset => "reset",
            Self::Failover => "failover",
        }
    }
}

/// The log of invalidations, read by every replica from its own position.
#[async_trait]
pub trait Bus: Send + 'static {
    /// Waits a moment for the next invalidations; an empty batch is a sign of life.
    async fn next(&mut self) -> Result<Batch, RemoteError>;
}
