//! The source's own log of changes, which says what is old: written with every change, read by every replica.

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{CacheKey, LoadError};

/// What changed in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// One thing, by [`CacheKey::hash`].
    Key(u128),
    /// Everything of a kind, by [`CacheKey::slot`].
    Kind(u8),
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub what: Changed,
    /// The version that it has since; 0: none, or unknown. Values of this version or a later one stay.
    pub version: u64,
}

/// What one read of the log brought.
#[derive(Debug, Clone)]
pub struct LogRead {
    /// Just before the read was sent: all that was committed by then is in this read or an earlier one.
    pub sent_at: Instant,
    /// Which log this is. Another one than before (a restored database, a failover that may have lost commits) says
    /// that nothing known from before may be believed.
    pub identity: u64,
    /// `None`: what changed since the last read is in `changes`. Else it was the first read, or something in between can't
    /// be had any more: `changes` has all that changed after this position of the log, as far as the log still has it,
    /// and nothing known from before may be believed.
    pub anew_since: Option<u64>,
    /// A number of the source that only grows, drawn after the state that this read saw was fixed. Whoever drew at least
    /// this number before a state of his own was fixed sees all that this read saw.
    pub position: u64,
    /// What changed.
    pub changes: Vec<Change>,
    /// How many replicas read this log, this one included.
    pub readers: usize,
    /// The newest version that the source has given out, as far as it says; 0: unknown.
    pub newest: u64,
}

/// The log of one source, shared by all replicas.
#[async_trait]
pub trait ChangeLog: Send + Sync + 'static {
    /// A reader of this process.
    fn reader(&self) -> Box<dyn LogReader>;
    /// Writes that things changed which aren't rows of the source.
    async fn append(&self, keys: &[CacheKey]) -> Result<(), LoadError>;
    /// Asks every reader to look now rather than at its next turn.
    async fn wake(&self) -> Result<(), LoadError>;
}

/// One replica's way through the log.
#[async_trait]
pub trait LogReader: Send + 'static {
    /// Waits for the next turn, at most half a second after the last, or until woken, and reads what is new.
    async fn next(&mut self) -> Result<LogRead, LoadError>;
    /// Tells that this replica reads no more.
    async fn leave(&mut self);
}
