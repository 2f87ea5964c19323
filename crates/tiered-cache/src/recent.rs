//! What changed lately: this process's memory of the log, by which it judges what it finds in the shared tiers.
//!
//! A value in Redis is right when Redis was cleaned of all changes up to some position of the log, and this memory, which
//! holds all changes after that position, has none of its key. So it doesn't matter what Redis lost, kept or refused.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;
use crate::log::{Change, Changed, LogRead};
use crate::remote::Tell;

/// How long a change is remembered. Redis is cleaned twice a second; when that stands still for longer, L2 isn't used.
const SPAN: Duration = Duration::from_secs(10);
/// Most changes remembered, about 10 MB; at higher rates the memory reaches less far back.
const MOST: usize = 100_000;
/// Most changes that Redis is cleaned of at once, those of the last two reads. More would keep it busy for too long.
const AT_ONCE: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// In the order in which they were heard of.
    told: VecDeque<Remembered>,
    /// Of each key in `told`.
    newest: HashMap<u128, Newest>,
    /// The position up to which a slot must have been cleaned, where all of it changed.
    kinds: HashMap<u8, u64>,
    /// Changes up to this position are forgotten, except those that came later by chance.
    horizon: u64,
    reads: Reads,
}

#[derive(Debug)]
struct Newest {
    /// 0: unknown.
    version: u64,
    heard: Instant,
}

/// The positions of the last reads of the log; 0: there was none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reads {
    pub(crate) last: u64,
    /// Of the one before it, which was drawn before the last one's state was fixed: who was cleaned of what the last one
    /// saw is clean up to there.
    pub(crate) before: u64,
}

#[derive(Debug)]
struct Remembered {
    at: Instant,
    /// Of the read that brought it; `None`: the bus was faster.
    position: Option<u64>,
    change: Change,
}

/// What Redis has to be cleaned of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unclean {
    pub(crate) changes: Vec<Change>,
    /// More changed than is remembered, or can be cleaned at once: nothing in it may be used any more.
    pub(crate) all: bool,
    /// The position up to which it is clean then.
    pub(crate) to: u64,
    /// The position of the last read that is in `changes`.
    pub(crate) done: u64,
}

impl Recent {
    /// Notes what a read of the log brought.
    pub(crate) fn read(&self, read: &LogRead, now: Instant) {
        let mut memory = lock(&self.0);
        if let Some(since) = read.anew_since {
            *memory = Memory { horizon: since, ..Memory::default() };
        }
        for change in &read.changes {
            memory.note(change, Some(read.position), now);
        }
        memory.reads = Reads { before: memory.reads.last, last: read.position };
        memory.trim(now);
    }

    /// Notes a change that was heard of otherwise; the log will bring it, too.
    pub(crate) fn heard(&self, change: &Change, now: Instant) {
        let mut memory = lock(&self.0);
        memory.note(change, None, now);
        memory.trim(now);
    }

    /// Whether this change was applied already. Versions are drawn before rows are visible, so that of a later change may be
    /// the lower one: of a row that waited for the deletion of another one with its key.
    pub(crate) fn knows(&self, hash: u128, version: u64) -> bool {
        version > 0 && lock(&self.0).newest.get(&hash).is_some_and(|newest| newest.version == version)
    }

    /// Whether a newer version than this is known.
    pub(crate) fn knows_newer(&self, hash: u128, version: u64) -> bool {
        version > 0 && lock(&self.0).newest.get(&hash).is_some_and(|newest| newest.version > version)
    }

    /// Whether a value of this version may be used, from a Redis that was cleaned up to `cleaned`.
    pub(crate) fn vouches(&self, hash: u128, slot: u8, version: u64, cleaned: u64) -> bool {
        let memory = lock(&self.0);
        let covered = cleaned > 0 && cleaned >= memory.horizon;
        let kind = memory.kinds.get(&slot).is_none_or(|changed| cleaned >= *changed);
        let newest = memory.newest.get(&hash).is_none_or(|newest| newest.version > 0 && version >= newest.version);
        covered && kind && newest
    }

    /// What a Redis that was cleaned up to `cleaned` has to be cleaned of.
    pub(crate) fn unclean(&self, cleaned: u64) -> Unclean {
        let memory = lock(&self.0);
        let since = |told: &&Remembered| told.position.is_some_and(|position| position > cleaned);
        let changes: Vec<Change> =
            memory.told.iter().filter(since).map(|told| told.change.clone()).take(AT_ONCE + 1).collect();
        if cleaned == 0 || cleaned < memory.horizon || changes.len() > AT_ONCE {
            // What is stored after this was loaded after the last read.
            return Unclean { changes: Vec::new(), all: true, to: memory.reads.last, done: memory.reads.last };
        }
        Unclean { changes, all: false, to: memory.reads.before, done: memory.reads.last }
    }

    /// All that is remembered of the log.
    pub(crate) fn remembered(&self) -> Tell {
        let memory = lock(&self.0);
        let read = memory.told.iter().filter(|told| told.position.is_some());
        Tell { from: memory.horizon, changes: read.map(|told| told.change.clone()).collect() }
    }

    pub(crate) fn reads(&self) -> Reads {
        lock(&self.0).reads
    }
}

impl Memory {
    fn note(&mut self, change: &Change, position: Option<u64>, at: Instant) {
        match change.what {
            Changed::Key(hash) => {
                let newest = self.newest.entry(hash).or_insert(Newest { version: change.version, heard: at });
                // An unknown version stays unknown until it is forgotten.
                let known = newest.version > 0 && change.version > 0;
                newest.version = if known { newest.version.max(change.version) } else { 0 };
                newest.heard = at;
            }
            Changed::Kind(slot) => {
                // One that only the bus told of holds until the log tells of it, or it is forgotten.
                let changed = self.kinds.entry(slot).or_default();
                *changed = match position {
                    Some(position) if *changed == u64::MAX => position,
                    Some(position) => position.max(*changed),
                    None => u64::MAX,
                };
            }
        }
        self.told.push_back(Remembered { at, position, change: change.clone() });
    }

    fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.told.front() {
            if self.told.len() <= MOST && now.saturating_duration_since(oldest.at) < SPAN {
                return;
            }
            let Some(Remembered { at, position, change }) = self.told.pop_front() else { return };
            self.horizon = self.horizon.max(position.unwrap_or(0));
            match change.what {
                Changed::Key(hash) => {
                    if self.newest.get(&hash).is_some_and(|newest| newest.heard == at) {
                        self.newest.remove(&hash);
                    }
                }
                Changed::Kind(slot) => {
                    let reached = |changed: &u64| *changed == u64::MAX || *changed <= self.horizon;
                    if self.kinds.get(&slot).is_some_and(reached) {
                        self.kinds.remove(&slot);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "../tests/unit/recent.rs"]
mod tests;
