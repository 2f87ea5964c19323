//! What can go wrong, as callers see it.

use std::sync::Arc;
use std::time::Duration;

/// The source's own error, shared by everyone who waited for the load.
pub type LoadError = Arc<dyn std::error::Error + Send + Sync>;

/// Why a read or an invalidation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// The loader failed and no stale value could stand in.
    #[error("the source failed: {0}")]
    Load(LoadError),
    /// The hard timeout passed. The load goes on and fills the cache.
    #[error("the source did not answer in time")]
    Timeout,
    /// Too many loads run or wait.
    #[error("too many loads are under way")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The source hasn't reached the version that was asked for.
    #[error("the source is at version {found}")]
    VersionNotReached {
        /// The source's version.
        found: u64,
    },
    /// The loader panicked.
    #[error("the loader panicked")]
    Panicked,
    /// The cache was shut down.
    #[error("the cache is shut down")]
    Closed,
    /// The log could not be told of an invalidation: nothing was forgotten.
    #[error("the log of changes could not be written: {0}")]
    Log(LoadError),
}

impl CacheError {
    /// The metric label.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Load(_) => "load",
            Self::Timeout => "timeout",
            Self::Overloaded { .. } => "overloaded",
            Self::VersionNotReached { .. } => "version_not_reached",
            Self::Panicked => "panicked",
            Self::Closed => "closed",
            Self::Log(_) => "log",
        }
    }

    pub(crate) fn overloaded() -> Self {
        Self::Overloaded { retry_after: Duration::from_secs(1) }
    }
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The transaction failed.
    #[error("the source refused the write")]
    Source(E),
    /// The cache was shut down; nothing was written.
    #[error("the cache is shut down; nothing was written")]
    Closed,
    /// The transaction panicked.
    #[error("the transaction panicked")]
    Panicked,
}
