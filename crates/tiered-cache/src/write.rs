//! Writes and invalidations, in a task of their own.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::inner::Inner;
use crate::lock::lock;
use crate::log::{Change, Changed};
use crate::remote::Notice;
use crate::shared::Shared;
use crate::untold::Telling;
use crate::{CacheError, CacheKey, RemoteError, TieredCache, WriteError};

/// Own notices whose way round is measured.
const ECHOES: usize = 256;

/// What a transaction has committed, or may have: where only the answer to its commit was lost, `value` says so, and
/// `changed` has version 0.
#[derive(Debug, Clone)]
pub struct Committed<T> {
    /// What the caller gets.
    pub value: T,
    /// What changed, with the version that each has since; 0: none.
    pub changed: Vec<(CacheKey, u64)>,
}

impl TieredCache {
    /// Runs `txn`, which must commit, and then tells every replica what changed before it answers.
    ///
    /// Runs in a task of its own: a caller that goes away neither stops the write nor keeps others from hearing of it.
    /// When `txn` fails nothing is forgotten: if it was committed all the same, the log says so.
    pub async fn write<T, E, F, Fut>(&self, txn: F) -> Result<T, WriteError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Committed<T>, E>> + Send + 'static,
    {
        // Asked for here: the task below is another one.
        let (inner, cause) = (Arc::clone(&self.inner), (self.inner.links.name)());
        if inner.closing.is_cancelled() {
            return Err(WriteError::Closed);
        }
        let work = async move {
            match AssertUnwindSafe(async { txn().await }).catch_unwind().await {
                Ok(Ok(committed)) => {
                    inner.committed(committed.changed.iter().map(|(key, version)| change(key, *version)), cause).await;
                    Ok(committed.value)
                }
                Ok(Err(error)) => Err(WriteError::Source(error)),
                Err(_) => Err(WriteError::Panicked),
            }
        };
        let task = self.inner.tasks.spawn_on(work.instrument(tracing::Span::current()), &self.inner.runtime);
        task.await.unwrap_or(Err(WriteError::Panicked))
    }

    /// Removes `keys` of things that aren't rows of the source from every tier of every replica.
    ///
    /// Fails when the log can't be told; then nothing is removed.
    pub async fn invalidate(&self, keys: &[CacheKey]) -> Result<(), CacheError> {
        let (inner, keys, cause) = (Arc::clone(&self.inner), keys.to_vec(), (self.inner.links.name)());
        let work = async move {
            if let Some(log) = &inner.log {
                log.append(&keys).await.map_err(CacheError::Log)?;
            }
            inner.committed(keys.iter().map(|key| change(key, 0)), cause).await;
            Ok(())
        };
        let task = self.inner.tasks.spawn_on(work.instrument(tracing::Span::current()), &self.inner.runtime);
        task.await.unwrap_or(Err(CacheError::Panicked))
    }
}

fn change(key: &CacheKey, version: u64) -> Change {
    Change { what: Changed::Key(key.hash()), version }
}

impl Inner {
    /// Forgets what changed here, and tells the others: by the shared tier, or at least that the log has news.
    async fn committed(&self, changes: impl Iterator<Item = Change>, cause: String) {
        let changes: Vec<Change> = changes.collect();
        if changes.is_empty() {
            return;
        }
        self.apply(&changes);
        let told = match &self.shared {
            Some(shared) => self.tell(shared, self.untold.begin(changes), cause).await.is_ok(),
            None => false,
        };
        if let (false, Some(log)) = (told, &self.log)
            && let Err(error) = log.wake().await
        {
            // They look by themselves, half a second later at most.
            tracing::debug!(name: "cache.log_unwoken", target: "tiered_cache", %error, "nobody could be woken");
        }
    }

    /// Tells the shared tier, and by its bus every replica.
    pub(crate) async fn tell(&self, to: &Shared, telling: Telling<'_>, cause: String) -> Result<(), RemoteError> {
        if let Some(first) = telling.changes.first() {
            let mut echoes = lock(&self.echoes);
            // What never comes back is pushed out.
            echoes.truncate(ECHOES - 1);
            echoes.push_front((first.what.clone(), Instant::now()));
        }
        let notice = Notice { changes: telling.changes.as_slice().into(), origin: self.replica, cause };
        let told = to.ask("invalidate", None, to.remote.invalidate(&notice)).await;
        self.metrics.invalidated(told.is_ok());
        told.map(|()| telling.told())
    }
}
