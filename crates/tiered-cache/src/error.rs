//! What can go wrong, as callers see it.

use std::sync::Arc;
use std::time::Duration;

use crate::RemoteError;

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
    /// Redis could not be told of an invalidation.
    #[error("the shared cache could not be reached")]
    Remote(#[from] RemoteError),
}

impl CacheError {
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
    /// [`Write::Strict`](crate::Write::Strict) without Redis, or a shut down cache: nothing was committed.
    #[error("the shared cache could not be reached; nothing was written")]
    Unavailable,
    /// The transaction panicked.
    #[error("the transaction panicked")]
    Panicked,
}
