//! The fence: until when cached values may be used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Cached values are used for this long after the log was last heard, which is the promise.
pub(crate) const REACH: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Fence {
    started: Instant,
    /// Nanoseconds after `started`; `u64::MAX`: always open, since there is no log to hear.
    until: AtomicU64,
}

impl Fence {
    pub(crate) fn new(always_open: bool) -> Self {
        Self { started: Instant::now(), until: AtomicU64::new(if always_open { u64::MAX } else { 0 }) }
    }

    pub(crate) fn is_open(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == u64::MAX || now.saturating_duration_since(self.started).as_nanos() < u128::from(until)
    }

    /// Everything that was committed before `heard` has been applied here.
    pub(crate) fn hear(&self, heard: Instant) {
        let until = heard.saturating_duration_since(self.started) + REACH;
        self.until.fetch_max(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX - 1), Ordering::AcqRel);
    }
}
