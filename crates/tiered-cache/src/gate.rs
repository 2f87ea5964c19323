//! The load gate: how many loads may ask the source at once, and how many may wait for that.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::CacheError;

#[derive(Debug)]
pub(crate) struct Gate {
    permits: Semaphore,
    size: usize,
    queue: Semaphore,
    places: usize,
    wait: Duration,
}

impl Gate {
    pub(crate) fn new(permits: usize, queue: usize, wait: Duration) -> Self {
        let (size, places) = (permits.clamp(1, Semaphore::MAX_PERMITS), queue.min(Semaphore::MAX_PERMITS));
        Self { permits: Semaphore::new(size), size, queue: Semaphore::new(places), places, wait }
    }

    /// Lets a load in, or says that too many wait already, or that it has waited for too long.
    pub(crate) async fn enter(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, CacheError> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let _place = self.queue.try_acquire().map_err(|_| CacheError::overloaded())?;
        let until = deadline.min(Instant::now() + self.wait);
        let entered = tokio::time::timeout_at(until, self.permits.acquire()).await;
        entered.ok().and_then(Result::ok).ok_or_else(CacheError::overloaded)
    }

    pub(crate) fn in_use(&self) -> usize {
        self.size - self.permits.available_permits()
    }

    pub(crate) fn queued(&self) -> usize {
        self.places - self.queue.available_permits()
    }
}
