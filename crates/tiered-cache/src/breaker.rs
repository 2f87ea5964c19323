//! The breaker: after a few failures in a row the shared tier is left alone until a probe succeeds.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

const FAILURES: u32 = 3;
/// Pause before the first and every further probe.
const COOL_DOWN: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Breaker {
    started: Instant,
    failures: AtomicU32,
    /// Nanoseconds after `started` of the next probe; 0: closed.
    probe_at: AtomicU64,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), failures: AtomicU32::new(0), probe_at: AtomicU64::new(0) }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.probe_at.load(Ordering::Acquire) != 0
    }

    /// Passes an operation's outcome on, and learns from it.
    pub(crate) fn judge<T, E>(&self, outcome: Result<T, E>) -> Result<T, E> {
        if outcome.is_ok() {
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
        } else if self.failures.fetch_add(1, Ordering::Relaxed) + 1 == FAILURES {
            self.probe_at.store(self.after_pause(Instant::now()), Ordering::Release);
            tracing::warn!(name: "cache.breaker_opened", target: "tiered_cache", "the breaker opened");
        }
        outcome
    }

    /// True for the one caller that is to probe now.
    pub(crate) fn takes_probe(&self, now: Instant) -> bool {
        let at = self.probe_at.load(Ordering::Acquire);
        let due = at != 0 && now.saturating_duration_since(self.started).as_nanos() >= u128::from(at);
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        due && self.probe_at.compare_exchange(at, self.after_pause(now), order.0, order.1).is_ok()
    }

    pub(crate) fn probed(&self, well: bool, now: Instant) {
        if well {
            self.failures.store(0, Ordering::Relaxed);
            self.probe_at.store(0, Ordering::Release);
            tracing::info!(name: "cache.breaker_closed", target: "tiered_cache", "the breaker closed");
        } else {
            self.probe_at.store(self.after_pause(now), Ordering::Release);
        }
    }

    fn after_pause(&self, now: Instant) -> u64 {
        let at = now.saturating_duration_since(self.started) + COOL_DOWN;
        u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
    }
}
