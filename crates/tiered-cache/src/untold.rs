//! What this replica has committed and the shared tier wasn't told of yet.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;
use crate::log::{Change, Changed};

/// Most changes kept; beyond, everything is said to have changed.
const MOST: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Untold(Mutex<Left>);

#[derive(Debug, Default)]
struct Left {
    /// What the next pulse is to tell.
    changes: Vec<Change>,
    /// When the first of it was committed.
    since: Option<Instant>,
    /// When that was committed which is being told just now.
    under_way: Vec<Instant>,
}

/// Changes that are being told. Unless they were, they are left to the next pulse.
pub(crate) struct Telling<'a> {
    untold: &'a Untold,
    since: Instant,
    told: bool,
    pub(crate) changes: Vec<Change>,
}

impl Untold {
    /// Begins to tell what was just committed.
    pub(crate) fn begin(&self, changes: Vec<Change>) -> Telling<'_> {
        let since = Instant::now();
        lock(&self.0).under_way.push(since);
        Telling { untold: self, since, told: false, changes }
    }

    /// Begins to tell what is left.
    pub(crate) fn rest(&self) -> Option<Telling<'_>> {
        let mut left = lock(&self.0);
        let since = left.since.take()?;
        left.under_way.push(since);
        Some(Telling { untold: self, since, told: false, changes: std::mem::take(&mut left.changes) })
    }

    /// Time since the oldest commit that isn't told.
    pub(crate) fn behind(&self, now: Instant) -> Duration {
        let left = lock(&self.0);
        let oldest = left.under_way.iter().copied().chain(left.since).min();
        oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl Telling<'_> {
    pub(crate) fn told(mut self) {
        self.told = true;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let mut left = lock(&self.untold.0);
        if let Some(at) = left.under_way.iter().position(|since| *since == self.since) {
            left.under_way.swap_remove(at);
        }
        if self.told {
            return;
        }
        left.since = Some(left.since.map_or(self.since, |since| since.min(self.since)));
        left.changes.append(&mut self.changes);
        if left.changes.len() > MOST {
            left.changes = (0..=u8::MAX).map(|slot| Change { what: Changed::Kind(slot), version: 0 }).collect();
        }
    }
}
