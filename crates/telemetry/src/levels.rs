//! Which events become lines: as configured, or for a while as somebody wants who looks for something.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::Level;
use tracing::callsite::rebuild_interest_cache;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The levels now and as configured.
#[derive(Debug)]
pub struct Levels {
    configured: Arc<Targets>,
    runtime: Handle,
    now: ArcSwap<Targets>,
    /// Held during a whole change, so that two at once leave the levels of one and that one's end.
    latest: Mutex<Change>,
}

/// The latest change.
#[derive(Debug, Default)]
struct Change {
    /// Tells it from those before, whose end may have come just when they were replaced.
    number: u64,
    /// Goes back to what is configured, in time.
    end: Option<AbortHandle>,
}

impl Change {
    fn replace(&mut self, end: Option<AbortHandle>) {
        self.number += 1;
        if let Some(before) = std::mem::replace(&mut self.end, end) {
            before.abort();
        }
    }
}

impl Levels {
    pub(crate) fn new(configured: Targets, runtime: Handle) -> Self {
        let configured = Arc::new(configured);
        Self { now: ArcSwap::new(Arc::clone(&configured)), configured, runtime, latest: Mutex::default() }
    }

    /// Whether events of this target and level become lines.
    pub fn allow(&self, target: &str, level: &Level) -> bool {
        self.now.load().would_enable(target, level)
    }

    pub(crate) fn max(&self) -> Option<LevelFilter> {
        let now = self.now.load();
        now.iter().map(|(_, level)| level).chain(now.default_level()).max()
    }

    /// The levels as text.
    pub fn text(&self) -> String {
        self.now.load().to_string()
    }

    /// Uses other levels for a while. A second call replaces the first, its end included.
    pub fn change(self: &Arc<Self>, levels: Targets, during: Duration) {
        let mut latest = self.latest();
        let (this, number) = (Arc::clone(self), latest.number + 1);
        let end = self.runtime.spawn(async move {
            tokio::time::sleep(during).await;
            this.end(number);
        });
        latest.replace(Some(end.abort_handle()));
        self.set(Arc::new(levels));
    }

    /// Goes back to what is configured at once.
    pub fn restore(&self) {
        let mut latest = self.latest();
        latest.replace(None);
        self.set(Arc::clone(&self.configured));
    }

    /// The time of this change is over.
    fn end(&self, number: u64) {
        let latest = self.latest();
        if latest.number == number {
            self.set(Arc::clone(&self.configured));
            tracing::info!(name: "log_filter.restored", filter = self.text(), "log levels are as configured again");
        }
    }

    fn set(&self, levels: Arc<Targets>) {
        self.now.store(levels);
        // What `tracing` remembers of each place in the code is wrong from here on.
        rebuild_interest_cache();
    }

    fn latest(&self) -> MutexGuard<'_, Change> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "../tests/unit/levels.rs"]
mod tests;
