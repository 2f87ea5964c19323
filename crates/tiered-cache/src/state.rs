//! Whether something can be used now, and if not, why: said in the log once for each change.

use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many failures in a row say that it can't be used.
const FAILURES: u32 = 3;

/// The state of one thing that the cache lives by.
#[derive(Debug)]
pub(crate) struct State {
    /// What it is called in log lines.
    name: &'static str,
    why: Mutex<Why>,
    failures: AtomicU32,
}

#[derive(Debug)]
enum Why {
    Well,
    /// Not asked yet, which isn't worth a word.
    Unknown,
    Unwell(Arc<str>),
}

impl State {
    pub(crate) fn well(name: &'static str) -> Self {
        Self::new(name, Why::Well)
    }

    pub(crate) fn unknown(name: &'static str) -> Self {
        Self::new(name, Why::Unknown)
    }

    fn new(name: &'static str, why: Why) -> Self {
        Self { name, why: Mutex::new(why), failures: AtomicU32::new(0) }
    }

    /// `None`: it is well.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        match &*self.lock() {
            Why::Well => None,
            Why::Unknown => Some("it has not been asked yet".into()),
            Why::Unwell(reason) => Some(Arc::clone(reason)),
        }
    }

    pub(crate) fn is_well(&self) -> bool {
        matches!(*self.lock(), Why::Well)
    }

    /// Passes the outcome of one use on. A few failures in a row are as bad as a look that failed.
    pub(crate) fn learn<T, E: Display>(&self, outcome: Result<T, E>) -> Result<T, E> {
        if outcome.is_ok() {
            self.failures.store(0, Ordering::Relaxed);
        } else if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.note(&outcome);
        }
        outcome
    }

    /// Notes how a look at it went; a line says so when that changed.
    pub(crate) fn note<T, E: Display>(&self, outcome: &Result<T, E>) {
        let mut why = self.lock();
        let part = self.name;
        match (outcome, &*why) {
            (Ok(_), Why::Well) => {}
            (Ok(_), Why::Unknown) => *why = Why::Well,
            (Ok(_), Why::Unwell(_)) => {
                *why = Why::Well;
                tracing::info!(name: "cache.part_well", target: "tiered_cache", part, "{part} can be used again");
            }
            (Err(error), before) => {
                let reason = error.to_string();
                // The same trouble in other words, such as a refused connection after a timeout, isn't told again.
                if !matches!(before, Why::Unwell(_)) {
                    tracing::warn!(name: "cache.part_unwell", target: "tiered_cache", part, error = reason, "{part} can't be used");
                }
                *why = Why::Unwell(reason.into());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Why> {
        // Nothing panics while it is held.
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
