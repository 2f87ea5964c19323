//! The load gate: how many loads may ask the source at once, and how many may wait for that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::CacheError;

#[derive(Debug)]
pub(crate) struct Gate {
    permits: Semaphore,
    size: usize,
    queued: AtomicUsize,
    queue: usize,
    wait: Duration,
}

impl Gate {
    pub(crate) fn new(permits: usize, queue: usize, wait: Duration) -> Self {
        let size = permits.clamp(1, Semaphore::MAX_PERMITS);
        Self { permits: Semaphore::new(size), size, queued: AtomicUsize::new(0), queue, wait }
    }

    /// Lets a load in, or says that too many wait already, or that it has waited for too long.
    pub(crate) async fn enter(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, CacheError> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let full = CacheError::Overloaded { retry_after: Duration::from_secs(1) };
        let _place = Place::take(&self.queued, self.queue).ok_or(full.clone())?;
        let until = deadline.min(Instant::now() + self.wait);
        match tokio::time::timeout_at(until, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(full),
        }
    }

    pub(crate) fn in_use(&self) -> usize {
        self.size - self.permits.available_permits()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

/// A place in the queue, given back however the wait ends.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(queued: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let more = |waiting: usize| (waiting < limit).then_some(waiting + 1);
        queued.try_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(queued))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
