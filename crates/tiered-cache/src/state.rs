//! Whether something can be used now, and if not, why: said in the log once for each change.

use std::sync::{Arc, Mutex, PoisonError};

/// The state of one thing that the cache lives by.
#[derive(Debug)]
pub(crate) struct State {
    /// What it is called in log lines.
    name: &'static str,
    why: Mutex<Why>,
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
        Self { name, why: Mutex::new(Why::Well) }
    }

    pub(crate) fn unknown(name: &'static str) -> Self {
        Self { name, why: Mutex::new(Why::Unknown) }
    }

    /// `None`: it is well.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        // Nothing panics while it is held.
        match &*self.why.lock().unwrap_or_else(PoisonError::into_inner) {
            Why::Well => None,
            Why::Unknown => Some("it has not been asked yet".into()),
            Why::Unwell(reason) => Some(Arc::clone(reason)),
        }
    }

    pub(crate) fn is_well(&self) -> bool {
        matches!(*self.why.lock().unwrap_or_else(PoisonError::into_inner), Why::Well)
    }

    /// Notes how it went; a line says so when that changed.
    pub(crate) fn note<T, E: std::fmt::Display>(&self, outcome: &Result<T, E>) {
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
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
}
