//! What the judge knows: writes, reads, counts.

use std::collections::VecDeque;
use std::time::Duration;

/// Time since the run began.
pub type At = Duration;

/// How many replicas there are.
pub const REPLICAS: usize = 3;
/// In place of a replica's number: a write by plain SQL, past all of them.
pub const SQL: usize = REPLICAS;
/// No replica answers an older value later than this after a write was answered, or was seen in the database.
pub const BOUND: Duration = Duration::from_secs(1);
/// The version of a deleted row: nothing is newer. 0 is that of one not yet created.
pub const GONE: u64 = u64::MAX;
/// Reads remembered per key and replica, for histories.
const READS: usize = 512;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Create,
    Replace,
    Delete,
}

/// What is known of a write's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sent, not yet answered.
    Pending,
    Done,
    Refused,
    /// Answered with 5xx, or not at all.
    Unknown,
    /// Committed, and not in the database that went back.
    Lost,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    pub kind: Kind,
    /// Unknown while a creation isn't answered.
    pub key: Option<i64>,
    /// The replica that was asked for it, or [`SQL`].
    pub replica: usize,
    pub begin: At,
    pub end: Option<At>,
    pub version: Option<u64>,
    pub outcome: Outcome,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Value {
        version: u64,
        /// The number in its name.
        write: u64,
    },
    /// 404.
    Absent,
    /// 409: the source hasn't reached the version asked for.
    Behind,
}

/// One answered read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub key: i64,
    pub replica: usize,
    pub start: At,
    pub end: At,
    /// The least version that was asked for; 0: none.
    pub asked: u64,
    pub seen: Seen,
    /// Which tier answered, by `Cache-Status`.
    pub tier: &'static str,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Older than a write that had been answered long enough ago.
    Stale,
    /// Older than what the database had shown long enough ago, though no client got an answer for that write.
    StaleUnanswered,
    /// No write of this key, or one that was refused.
    NobodyWrote,
    /// A write that the database has lost.
    Lost,
    /// One write under two versions.
    TwoVersions,
    /// Below the version asked for.
    BelowAsked,
    /// 409 for a version that had been answered.
    Behind,
}

/// A state of the row that has to be seen from `end` on.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub version: u64,
    pub number: u64,
    pub replica: usize,
    pub begin: At,
    pub end: At,
}

/// Steps of one key by version. A step is left out when a newer version was answered no later: that one says more.
#[derive(Default)]
pub struct Steps(VecDeque<Step>);

impl Steps {
    pub fn add(&mut self, step: Step) {
        let place = self.0.partition_point(|known| known.version < step.version);
        if self.0.get(place).is_some_and(|newer| newer.version == step.version || newer.end <= step.end) {
            return;
        }
        self.0.insert(place, step);
        let keep = self.0.iter().take(place).rposition(|older| older.end < step.end).map_or(0, |last| last + 1);
        self.0.drain(keep..place);
    }

    /// Versions above `version`, by the time from which they have to be seen.
    pub fn newer(&self, version: u64) -> impl Iterator<Item = &Step> {
        self.0.range(self.0.partition_point(|step| step.version <= version)..)
    }

    pub fn since(&self, at: At) -> impl Iterator<Item = &Step> {
        self.0.iter().filter(move |step| step.end > at)
    }

    /// The database went back to `version`.
    pub fn back_to(&mut self, version: u64) {
        self.0.retain(|step| step.version <= version);
    }

    pub fn last(&self) -> Option<&Step> {
        self.0.back()
    }

    /// A step goes when its successor is older than the horizon, so that what is too old stays so.
    pub fn prune(&mut self, horizon: At) {
        while self.0.get(1).is_some_and(|next| next.end < horizon) {
            self.0.pop_front();
        }
    }
}

/// The latest reads of one key on one replica.
#[derive(Default)]
pub struct KeyReads(VecDeque<Read>);

impl KeyReads {
    pub fn add(&mut self, read: Read) {
        if self.0.len() == READS {
            self.0.pop_front();
        }
        self.0.push_back(read);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Read> {
        self.0.iter()
    }

    pub fn last(&self) -> Option<&Read> {
        self.0.back()
    }

    pub fn prune(&mut self, horizon: At) {
        while self.0.front().is_some_and(|read| read.end < horizon) {
            self.0.pop_front();
        }
    }
}

/// One user.
#[derive(Default)]
pub struct Key {
    pub acknowledged: Steps,
    pub observed: Steps,
    pub delete_begun: Option<At>,
    pub reads: [KeyReads; REPLICAS],
}

/// Counts of one phase.
#[derive(Default)]
pub struct Tally {
    /// Answered with a value or 404.
    pub reads: u64,
    /// Answered with anything else, or not at all.
    pub errors: u64,
    pub writes: u64,
    pub unknown: u64,
    pub violations: u64,
    /// Behind writes that a replica answered.
    pub stale: Staleness,
    /// Behind writes by plain SQL.
    pub stale_of_sql: Staleness,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.errors += other.errors;
        self.writes += other.writes;
        self.unknown += other.unknown;
        self.violations += other.violations;
        self.stale.merge(&other.stale);
        self.stale_of_sql.merge(&other.stale_of_sql);
    }
}

/// How old stale answers were.
#[derive(Default)]
pub struct Staleness(Vec<Duration>);

impl Staleness {
    /// The first million are enough for quantiles; the longest is always kept.
    pub fn add(&mut self, staleness: Duration) {
        let full = self.0.len() >= 1_000_000;
        match self.0.last_mut() {
            Some(last) if full => *last = staleness.max(*last),
            _ => self.0.push(staleness),
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The quantile in percent; 100 is the longest.
    pub fn quantile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.max(1) - 1).copied()
    }

    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|staleness| self.add(*staleness));
    }
}
