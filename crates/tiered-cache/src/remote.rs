//! What the cache asks of the tier that all replicas share, so that tests can stand in for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::log::Change;

/// A lease that isn't renewed for this long is free.
pub const LEASE: Duration = Duration::from_secs(2);

/// Names a lease or a replica, drawn at random.
pub type Token = u64;

/// Where a value lives in the shared tier: one place per key, one field per schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// [`CacheKey::hash`](crate::CacheKey::hash).
    pub hash: u128,
    /// [`CacheKey::slot`](crate::CacheKey::slot).
    pub slot: u8,
    /// [`Policy::schema`](crate::Policy::schema).
    pub schema: u32,
}

/// A stored value.
#[derive(Debug, Clone)]
pub struct Found {
    /// The encoded entry.
    pub bytes: Bytes,
    /// Tells one value from the next; any bytes, where somebody else wrote them.
    pub stamp: Bytes,
    /// Time since it was stored, by the shared tier's clock.
    pub age: Duration,
    /// The position of the log up to which the shared tier was cleaned, as it said before it gave the value; 0: unknown.
    pub cleaned: u64,
}

/// What the holder of a lease is told, for judging a copy kept elsewhere (L3).
#[derive(Debug, Clone, Default)]
pub struct Mark {
    /// The copy that may be trusted; 0: none.
    pub copy: u64,
    /// The shared tier's clock, in milliseconds.
    pub now: u64,
    /// See [`Found::cleaned`].
    pub cleaned: u64,
}

/// The answer to a request for a lease.
#[derive(Debug, Clone)]
pub enum Acquired {
    /// Load, then fill with the token.
    Granted(Mark),
    /// Another replica loads.
    Held,
    /// There is another value than the one that was known.
    Found(Found),
}

/// What became of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// Stored, at this time of the shared tier's clock, in milliseconds.
    Stored {
        /// When.
        stamp: u64,
    },
    /// The lease had ended: an invalidation, or its time.
    Lost,
    /// There is a newer version.
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
    /// The name of the copy that goes to L3, and how long that may be trusted.
    pub copy: Option<(u64, Duration)>,
}

/// What a replica says of itself, again and again.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    /// The replica.
    pub replica: Token,
    /// When, by the shared tier's clock in milliseconds, all that this replica had committed was told; 0: it doesn't know
    /// that clock yet, and isn't counted.
    pub told: u64,
    /// It can read the log, as far as it knows.
    pub sees: bool,
    /// It hasn't read the log lately, and lives by what it is told.
    pub blind: bool,
    /// The position of the log that it read last.
    pub read: u64,
}

/// What the shared tier answers to a pulse.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beat {
    /// The shared tier's clock, in milliseconds.
    pub now: u64,
    /// This replica is to clean the shared tier of what the log says.
    pub courier: bool,
    /// The position of the log up to which it is clean; 0: unknown.
    pub cleaned: u64,
    /// When the last cleaning's read of the log was sent, as time since then.
    pub cleaned_ago: Option<Duration>,
    /// What couriers have told on the bus without a gap.
    pub told: Option<Told>,
    /// Some replica can read the log, as far as all have said.
    pub watched: bool,
    /// The furthest position of the log that any replica has read.
    pub furthest: u64,
    /// How many replicas give their pulse here.
    pub replicas: usize,
    /// The longest time since one of them had told all that it had committed.
    pub oldest: Duration,
    /// Some replica hasn't read the log lately, and lives by what it is told here.
    pub blind: bool,
    /// The end of the bus.
    pub bus: Reached,
}

/// A place on the bus. It is named twice, since servers that took over from each other count alike, and entries are trimmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// How many notices there were.
    pub sequence: u64,
    /// The last one that is still there: when it came by the server's clock, and its number then.
    pub last: (u64, u64),
}

impl Reached {
    /// Who read up to here has read all that there was up to `end`.
    pub(crate) fn covers(self, end: Self) -> bool {
        self.sequence >= end.sequence && self.last >= end.last
    }
}

/// What of the log was told on the bus.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// All that changed after this position,
    pub from: u64,
    /// as far as the reads up to this position saw it.
    pub to: u64,
}

/// A cleaning.
#[derive(Debug, Clone)]
pub struct Cleaning {
    /// Who cleans.
    pub courier: Token,
    /// What changed.
    pub changes: Vec<Change>,
    /// Nothing in the shared tier may be used any more.
    pub all: bool,
    /// The position of the log up to which it is clean afterwards.
    pub to: u64,
    /// The position of the last read of the log that is in it.
    pub done: u64,
    /// When that read was sent, by the shared tier's clock in milliseconds.
    pub read_at: u64,
    /// What is to be put on the bus; `None`: what was put there doesn't count any more.
    pub tell: Option<Tell>,
}

/// What a courier puts on the bus.
#[derive(Debug, Clone)]
pub struct Tell {
    /// All that changed after this position was put there then,
    pub from: u64,
    /// with these changes.
    pub changes: Vec<Change>,
}

/// The tier that all replicas share.
#[async_trait]
pub trait Remote: Send + Sync + 'static {
    /// From now on everything belongs to this log; nothing that was stored under another one is found.
    fn follow(&self, identity: u64);
    /// Reads a value.
    async fn get(&self, place: Place) -> Result<Option<Found>, RemoteError>;
    /// Asks for the lease on a key, unless there is a value with another stamp than `known`.
    async fn acquire(&self, place: Place, token: Token, known: &[u8]) -> Result<Acquired, RemoteError>;
    /// Prolongs a lease; false when it was lost.
    async fn renew(&self, place: Place, token: Token) -> Result<bool, RemoteError>;
    /// Stores a value and ends the lease, if it still holds.
    async fn fill(&self, place: Place, token: Token, fill: Fill) -> Result<Filled, RemoteError>;
    /// Ends a lease without storing.
    async fn release(&self, place: Place, token: Token) -> Result<(), RemoteError>;
    /// Removes what is stored there, whatever it is.
    async fn remove(&self, place: Place) -> Result<(), RemoteError>;
    /// Removes values, breaks leases, and tells every replica.
    async fn invalidate(&self, notice: &Notice) -> Result<(), RemoteError>;
    /// A sign of life that is a write, and so shows whether the tier takes any.
    async fn pulse(&self, pulse: Pulse) -> Result<Beat, RemoteError>;
    /// Removes what is older than the log says; false when another replica is the courier.
    async fn clean(&self, cleaning: &Cleaning) -> Result<bool, RemoteError>;
    /// Says that a replica ends, so that the others needn't wait for its pulse. One that could read the log isn't counted
    /// any more, since the log forgets it, and it may go on with another shared tier.
    async fn leave(&self, replica: Token, sees: bool) -> Result<(), RemoteError>;
}

/// Why the shared tier, or a store of copies, didn't do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// There is no connection now, for this reason; nothing was sent.
    #[error("no connection: {0}")]
    Unavailable(Arc<str>),
    /// No answer in time. The command may still be carried out.
    #[error("timeout")]
    Timeout,
    /// The key holds something of another type; that says nothing about other keys.
    #[error("the key holds something of another type")]
    WrongType,
    /// It was refused, in the tier's own words, or the connection broke.
    #[error("{0}")]
    Failed(Arc<str>),
}

impl From<Elapsed> for RemoteError {
    fn from(_: Elapsed) -> Self {
        Self::Timeout
    }
}

/// What one read of the bus brought.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Just before the read was sent: every notice that had been answered by then is in this batch or an earlier one.
    pub sent_at: Instant,
    /// The notices, in order.
    pub notices: Vec<Notice>,
    /// Some notices can't be had any more, or none were had yet.
    pub gap: bool,
    /// False while there is more to read.
    pub caught_up: bool,
    /// How far all of the bus was read, from where it was joined.
    pub reached: Reached,
}

/// What one replica tells all others.
#[derive(Debug, Clone)]
pub struct Notice {
    /// What changed.
    pub changes: Arc<[Change]>,
    /// The replica that says so.
    pub origin: u64,
    /// The span that it did so in, as [`Builder::links`](crate::Builder::links) named it; empty: none.
    pub cause: String,
}

/// The stream of notices, read by every replica from its own position.
#[async_trait]
pub trait Bus: Send + 'static {
    /// Waits a moment for the next notices; an empty batch is a sign of life.
    async fn next(&mut self) -> Result<Batch, RemoteError>;
}
