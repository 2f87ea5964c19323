//! Writes and invalidations: around the commit, in a task of their own.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::flight::lock;
use crate::inner::Inner;
use crate::metrics::outcome;
use crate::remote::{Notice, Phase, Token, traced};
use crate::{CacheError, CacheKey, RemoteError, TieredCache, Write, WriteError, outbox};

/// Blocks outlive the longest possible write by this much.
const BLOCK_MARGIN: Duration = Duration::from_secs(5);
const ECHOES: usize = 256;
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a transaction is told, and tells.
#[derive(Debug, Clone)]
pub struct WriteCx {
    outbox: Option<Bytes>,
    committing: Arc<AtomicBool>,
}

impl WriteCx {
    /// Set when Redis couldn't be told beforehand: store this payload as an outbox row in the same transaction.
    pub fn outbox(&self) -> Option<&Bytes> {
        self.outbox.as_ref()
    }

    /// To be called just before COMMIT is sent. An error after that leaves open whether it was carried out,
    /// and the keys stay blocked until it can't be any more.
    pub fn committing(&self) {
        self.committing.store(true, Ordering::SeqCst);
    }
}

impl TieredCache {
    /// Runs `txn`, which must commit and give the row's version, and invalidates `keys` around the commit.
    ///
    /// Runs in a task of its own: a caller that goes away neither stops the write nor loses the invalidation.
    pub async fn write<T, E, F, Fut>(&self, keys: Vec<CacheKey>, level: Write, txn: F) -> Result<T, WriteError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(WriteCx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(T, u64), E>> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        if inner.closing.is_cancelled() {
            return Err(WriteError::Unavailable);
        }
        let notice = inner.notice(keys.iter().map(CacheKey::hash));
        let work = async move { inner.write(notice, level, txn).await };
        let task = self.inner.tasks.spawn_on(work.instrument(tracing::Span::current()), &self.inner.runtime);
        task.await.unwrap_or(Err(WriteError::Panicked))
    }

    /// Removes `keys` from every tier of every replica.
    ///
    /// An error says that Redis can't be told now; it is told as soon as it is back, unless this process ends before.
    pub async fn invalidate(&self, keys: &[CacheKey]) -> Result<(), CacheError> {
        let inner = Arc::clone(&self.inner);
        let notice = inner.notice(keys.iter().map(CacheKey::hash));
        let work = async move {
            inner.forget(&notice.hashes);
            inner.deliver(&notice, Phase::Done { write: 0, version: 0 }).await
        };
        let task = self.inner.tasks.spawn_on(work.instrument(tracing::Span::current()), &self.inner.runtime);
        Ok(task.await.unwrap_or(Err(RemoteError::Unavailable))?)
    }
}

impl Inner {
    async fn write<T, E, F, Fut>(self: Arc<Self>, notice: Notice, level: Write, txn: F) -> Result<T, WriteError<E>>
    where
        F: FnOnce(WriteCx) -> Fut + Send,
        Fut: Future<Output = Result<(T, u64), E>> + Send,
    {
        let write: Token = rand::random::<u64>() | 1;
        let life = self.longest_write + BLOCK_MARGIN;
        let blocked = self.tell(&notice, Phase::Block { write, life }).await;
        if blocked.is_err() && level == Write::Strict {
            // The block may have arrived all the same.
            self.deliver_later(&notice, Phase::Done { write, version: 0 });
            return Err(WriteError::Unavailable);
        }
        let committing = Arc::new(AtomicBool::new(false));
        let outbox = blocked.is_err().then(|| outbox::encode(&notice.hashes));
        let cx = WriteCx { outbox, committing: Arc::clone(&committing) };
        let outcome = AssertUnwindSafe(async { txn(cx).await }).catch_unwind().await;
        self.forget(&notice.hashes);
        let phase = match &outcome {
            Ok(Ok((_, version))) => Phase::Done { write, version: *version },
            // Perhaps committed, perhaps not yet: the block stays and ends by itself.
            _ if committing.load(Ordering::SeqCst) => Phase::Done { write: 0, version: 0 },
            _ => Phase::Done { write, version: 0 },
        };
        // A failure here costs nothing but time: the block holds, or the outbox row waits.
        drop(self.deliver(&notice, phase).await);
        match outcome {
            Ok(Ok((value, _))) => Ok(value),
            Ok(Err(error)) => Err(WriteError::Source(error)),
            Err(_) => Err(WriteError::Panicked),
        }
    }

    /// This process's own copies go at once; it doesn't wait for its own message to come round.
    pub(crate) fn forget(&self, hashes: &[u128]) {
        for &hash in hashes {
            self.l1.invalidate(hash);
            self.flights.detach(hash);
        }
    }

    /// What every replica is told of an invalidation that is made here and now.
    pub(crate) fn notice(&self, hashes: impl Iterator<Item = u128>) -> Notice {
        Notice { hashes: hashes.collect(), origin: self.origin, cause: self.links.0() }
    }

    pub(crate) async fn tell(&self, notice: &Notice, phase: Phase) -> Result<(), RemoteError> {
        let Some(remote) = &self.remote else { return Ok(()) };
        if let Some(&first) = notice.hashes.first() {
            let mut echoes = lock(&self.echoes);
            // What never comes back is pushed out.
            echoes.truncate(ECHOES - 1);
            echoes.push_front((first, Instant::now()));
        }
        let name = if matches!(phase, Phase::Block { .. }) { "block" } else { "done" };
        let told = traced(name, None, remote.invalidate(notice, phase)).await;
        self.metrics.invalidated(name, outcome(told.is_ok()));
        if told.is_ok() {
            // What was promoted from L2 before it was told there goes, too.
            self.forget(&notice.hashes);
        }
        told
    }

    /// Tells the shared tier now, or goes on trying in the background.
    pub(crate) async fn deliver(self: &Arc<Self>, notice: &Notice, phase: Phase) -> Result<(), RemoteError> {
        let told = self.tell(notice, phase).await;
        if told.is_err() {
            self.deliver_later(notice, phase);
        }
        told
    }

    fn deliver_later(self: &Arc<Self>, notice: &Notice, phase: Phase) {
        let (inner, notice) = (Arc::clone(self), notice.clone());
        let work = async move {
            // Bounded in number; what finds no place is left to the block or the outbox row.
            let Ok(_place) = inner.retries.try_acquire() else { return };
            let mut pause = RETRY.0;
            loop {
                // A stop waits for one attempt more: the block, the outbox row or the fence covers the rest.
                let closing = tokio::time::timeout(pause, inner.closing.cancelled()).await.is_ok();
                pause = (pause * 2).min(RETRY.1);
                if inner.tell(&notice, phase).await.is_ok() || closing {
                    return;
                }
            }
        };
        self.tasks.spawn_on(self.stop.clone().run_until_cancelled_owned(work), &self.runtime);
    }
}
