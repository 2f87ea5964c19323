//! What all clones of a cache share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::breaker::Breaker;
use crate::builder::Links;
use crate::flight::Flights;
use crate::gate::Gate;
use crate::l1::L1;
use crate::l3::L3;
use crate::metrics::CacheMetrics;
use crate::{CacheHealth, OutboxStore, Remote};

/// L1 answers for this long after the bus was last asked with success.
pub(crate) const FENCE: Duration = Duration::from_secs(1);
/// How long a load made without the shared tier may be served.
pub(crate) const DEGRADED: Duration = Duration::from_secs(5);
/// A lease that isn't renewed for this long is free.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

pub(crate) struct Inner {
    pub(crate) runtime: Handle,
    pub(crate) longest_write: Duration,
    pub(crate) probe_every: u32,
    pub(crate) links: Links,
    pub(crate) l1: L1,
    pub(crate) flights: Flights,
    pub(crate) gate: Gate,
    pub(crate) remote: Option<Arc<dyn Remote>>,
    pub(crate) l3: Option<L3>,
    pub(crate) outbox: Option<Arc<dyn OutboxStore>>,
    pub(crate) metrics: CacheMetrics,
    /// Tells this replica's own messages on the bus from others'.
    pub(crate) origin: u64,
    pub(crate) tasks: TaskTracker,
    /// Bounds the invalidations that are delivered in the background.
    pub(crate) retries: Semaphore,
    pub(crate) probing: Semaphore,
    /// No new loads.
    pub(crate) closing: CancellationToken,
    /// End of everything.
    pub(crate) stop: CancellationToken,
    pub(crate) started: Instant,
    pub(crate) breaker: Breaker,
    /// Nanoseconds after `started` up to which L1 may answer; `u64::MAX` without a bus.
    pub(crate) fence: AtomicU64,
    /// Own invalidations that the bus hasn't brought back: first key, when sent.
    pub(crate) echoes: Mutex<VecDeque<(u128, Instant)>>,
}

impl Inner {
    pub(crate) fn fence_open(&self, now: Instant) -> bool {
        let fence = self.fence.load(Ordering::Acquire);
        fence == u64::MAX || now.saturating_duration_since(self.started).as_nanos() < u128::from(fence)
    }

    /// Opens the fence for a while after `heard`, the time before an answered read of the bus was sent.
    pub(crate) fn advance_fence(&self, heard: Instant) {
        let until = heard.saturating_duration_since(self.started) + FENCE;
        self.fence.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX - 1), Ordering::Release);
    }

    pub(crate) fn health(&self) -> CacheHealth {
        let now = Instant::now();
        let heard = Duration::from_nanos(self.fence.load(Ordering::Acquire)).saturating_sub(FENCE);
        let silent = now.saturating_duration_since(self.started).saturating_sub(heard);
        CacheHealth {
            fence_open: self.fence_open(now),
            bus_lag: if self.remote.is_some() { silent } else { Duration::ZERO },
            breaker_open: self.breaker.is_open(),
            l3_breaker_open: self.l3.as_ref().is_some_and(|l3| l3.breaker.is_open()),
            flights: self.flights.under_way(),
            loads: self.gate.in_use(),
            queued: self.gate.queued(),
            l1_bytes: self.l1.bytes(),
            l1_entries: self.l1.entries(),
        }
    }
}
