//! What this replica has committed and couldn't tell the shared tier yet.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::key::SLOTS;
use crate::log::{Change, Changed};

/// Most commits kept; beyond, everything is said to have changed.
const MOST: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Untold(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    commits: BTreeMap<u64, Commit>,
    next: u64,
}

#[derive(Debug)]
struct Commit {
    since: Instant,
    changes: Vec<Change>,
    /// Whoever committed is telling it.
    under_way: bool,
}

impl Untold {
    /// Notes a commit, before it is told.
    pub(crate) fn begin(&self, changes: &[Change], since: Instant) -> u64 {
        let mut pending = self.lock();
        let id = pending.next;
        pending.next += 1;
        pending.commits.insert(id, Commit { since, changes: changes.to_vec(), under_way: true });
        if pending.commits.len() > MOST {
            pending.merge();
        }
        id
    }

    /// It was told, or it is left to the next pulse.
    pub(crate) fn end(&self, id: u64, told: bool) {
        let mut pending = self.lock();
        if told {
            pending.commits.remove(&id);
        } else if let Some(commit) = pending.commits.get_mut(&id) {
            commit.under_way = false;
        }
    }

    /// Up to `most` changes that nobody is telling, and the commits that they are of.
    pub(crate) fn left(&self, most: usize) -> (Vec<u64>, Vec<Change>) {
        let pending = self.lock();
        let (mut ids, mut changes) = (Vec::new(), Vec::new());
        for (id, commit) in pending.commits.iter().filter(|(_, commit)| !commit.under_way) {
            if !ids.is_empty() && changes.len() + commit.changes.len() > most {
                break;
            }
            ids.push(*id);
            changes.extend_from_slice(&commit.changes);
        }
        (ids, changes)
    }

    /// Time since the oldest commit that isn't told.
    pub(crate) fn behind(&self, now: Instant) -> Duration {
        let oldest = self.lock().commits.values().map(|commit| commit.since).min();
        oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Puts one commit, of everything, in the place of all that nobody is telling.
    fn merge(&mut self) {
        let oldest = self.commits.values().map(|commit| commit.since).min();
        self.commits.retain(|_, commit| commit.under_way);
        let Some(since) = oldest else { return };
        let changes = (0..SLOTS).map(|slot| Change { what: Changed::Kind(slot), version: 0 }).collect();
        self.commits.insert(self.next, Commit { since, changes, under_way: false });
        self.next += 1;
    }
}
