//! Which events become lines: as configured, or for a while as somebody wants who looks for something.

use std::sync::{Arc, Mutex, PoisonError};
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
    /// Goes back to what is configured, in time.
    back: Mutex<Option<AbortHandle>>,
}

impl Levels {
    pub(crate) fn new(configured: Targets, runtime: Handle) -> Self {
        let configured = Arc::new(configured);
        Self { now: ArcSwap::new(Arc::clone(&configured)), configured, runtime, back: Mutex::default() }
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
        let this = Arc::clone(self);
        let timer = self.runtime.spawn(async move {
            tokio::time::sleep(during).await;
            this.set(Arc::clone(&this.configured));
            tracing::info!(name: "log_filter.restored", filter = this.text(), "log levels are as configured again");
        });
        self.replace_timer(Some(timer.abort_handle()));
        self.set(Arc::new(levels));
    }

    /// Goes back to what is configured at once.
    pub fn restore(&self) {
        self.replace_timer(None);
        self.set(Arc::clone(&self.configured));
    }

    fn set(&self, levels: Arc<Targets>) {
        self.now.store(levels);
        // What `tracing` remembers of each place in the code is wrong from here on.
        rebuild_interest_cache();
    }

    fn replace_timer(&self, timer: Option<AbortHandle>) {
        let before = std::mem::replace(&mut *self.back.lock().unwrap_or_else(PoisonError::into_inner), timer);
        if let Some(before) = before {
            before.abort();
        }
    }
}
