//! What this replica has committed and couldn't tell the shared tier yet.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::key::SLOTS;
use crate::log::{Change, Changed};

/// Most changes kept; beyond, everything is said to have changed.
const MOST: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Untold(Mutex<Option<Left>>);

/// What is left to be told.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    /// When the first of it was committed.
    since: Instant,
    pub(crate) changes: Vec<Change>,
}

impl Untold {
    /// Leaves changes that were committed at `since` to the next pulse.
    pub(crate) fn leave(&self, changes: &[Change], since: Instant) {
        let mut left = self.lock();
        let left = left.get_or_insert_with(|| Left { since, changes: Vec::new() });
        left.since = left.since.min(since);
        left.changes.extend_from_slice(changes);
        if left.changes.len() > MOST {
            left.changes = (0..SLOTS).map(|slot| Change { what: Changed::Kind(slot), version: 0 }).collect();
        }
    }

    /// Takes what is left, to tell it now.
    pub(crate) fn take(&self) -> Option<Left> {
        self.lock().take()
    }

    /// Gives back what couldn't be told now either.
    pub(crate) fn give_back(&self, left: &Left) {
        self.leave(&left.changes, left.since);
    }

    /// Time since the oldest commit that isn't told.
    pub(crate) fn behind(&self, now: Instant) -> Duration {
        self.lock().as_ref().map_or(Duration::ZERO, |left| now.saturating_duration_since(left.since))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Left>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
