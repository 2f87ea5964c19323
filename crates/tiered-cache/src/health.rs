//! How the cache is doing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::inner::Inner;

/// How the cache is doing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CacheHealth {
    /// Cached values may be used: the log was heard lately, or a shared tier vouches for them, or there is no log.
    pub fence_open: bool,
    /// Time since the last answered read of the log was sent; zero without a log.
    pub log_lag: Duration,
    /// Why the log can't be read.
    pub log_error: Option<Arc<str>>,
    /// Why the shared tier or its bus can't be used, in its own words; `None` also where there is none.
    pub unfit: Option<Arc<str>>,
    /// Time since the last answered read of the bus was sent; zero without a shared tier.
    pub bus_lag: Duration,
    /// L3 is left alone after failures.
    pub l3_breaker_open: bool,
    /// Loads that ask the source.
    pub loads: usize,
    /// Loads that wait for the gate.
    pub queued: usize,
    /// Bytes in L1.
    pub l1_bytes: u64,
    /// Entries in L1.
    pub l1_entries: u64,
}

impl Inner {
    pub(crate) fn health(&self) -> CacheHealth {
        let now = Instant::now();
        let since = |heard: Option<Instant>| now.saturating_duration_since(heard.unwrap_or(self.started));
        let heard = self.heard();
        CacheHealth {
            fence_open: self.fence.is_open(now),
            log_lag: if self.log.is_some() { since(heard.log) } else { Duration::ZERO },
            log_error: self.log_part.reason(),
            unfit: self.shared.as_ref().and_then(|shared| shared.part.reason().or_else(|| shared.bus.reason())),
            bus_lag: if self.shared.is_some() { since(heard.bus) } else { Duration::ZERO },
            l3_breaker_open: self.l3.as_ref().is_some_and(|l3| !l3.part.is_well()),
            loads: self.gate.in_use(),
            queued: self.gate.queued(),
            l1_bytes: self.l1.bytes(),
            l1_entries: self.l1.entries(),
        }
    }
}
