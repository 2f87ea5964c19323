//! Judges what the replicas answered by what had been written before.
//!
//! Nothing here waits or reads a clock: every time comes in, counted from the run's begin by one monotonic clock.
//! A write's end is noted after its answer came and a read's start before it is sent, so that every inaccuracy
//! speaks for the service.

mod history;
pub mod model;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

pub use history::Case;
pub use model::{At, BOUND, GONE, Kind, Outcome, Read, SQL, Seen, Tally, Verdict, Write};
use model::{Key, KeyReads, Step};

/// How much history is kept: more than the longest bound, what a frozen replica sleeps, and a request's timeout.
const KEPT: Duration = Duration::from_secs(60);
/// What is committed so shortly before the database dies, past the service or without an answer, may be unheard of.
const UNHEARD: Duration = Duration::from_secs(1);
/// After the database is back until all replicas have found it.
const FOUND: Duration = Duration::from_secs(1);
/// Histories kept for the report; the first ones are the smallest, what follows is mostly the same once more.
const CASES: usize = 3;

/// Everything known of the writes, and what became of the reads.
#[derive(Default)]
pub struct Judge {
    keys: HashMap<i64, Key>,
    writes: BTreeMap<u64, Write>,
    /// The number of the next write; each is part of the name that it writes.
    next: u64,
    /// When the database last went back to what it had been before.
    went_back: Option<At>,
    /// When it was dead.
    dead: Vec<(At, Option<At>)>,
    tally: Tally,
    cases: Vec<Case>,
}

impl Judge {
    /// A write is about to be sent; `key` is unknown for one that creates. Its number goes into the name it writes.
    pub fn begin(&mut self, kind: Kind, key: Option<i64>, replica: usize, at: At) -> u64 {
        let number = self.next;
        self.next += 1;
        if let (Kind::Delete, Some(key)) = (kind, key) {
            self.keys.entry(key).or_default().delete_begun.get_or_insert(at);
        }
        let write = Write { kind, key, replica, begin: at, end: None, version: None, outcome: Outcome::Pending };
        self.writes.insert(number, write);
        number
    }

    /// The write was answered: from now on its version, or a later one, has to be seen.
    pub fn done(&mut self, number: u64, key: i64, version: u64, at: At) {
        self.tally.writes += 1;
        let Some(write) = self.writes.get_mut(&number) else { return };
        if self.went_back.is_some_and(|back| write.begin < back) {
            // Done before the database went back, and lost, or after it: a replica that stood still may answer either.
            return self.end(number, Outcome::Unknown, at);
        }
        (write.end, write.key, write.outcome) = (Some(at), Some(key), Outcome::Done);
        let seen = write.version.replace(version);
        let step = Step { version, number, replica: write.replica, begin: write.begin, end: at };
        let key_state = self.keys.entry(key).or_default();
        key_state.acknowledged.add(step);
        if seen.is_some_and(|seen| seen != version) {
            self.violation(Case::new(Verdict::TwoVersions, key, step, None));
        }
    }

    /// The write was answered with a refusal: nothing may ever show it.
    pub fn refused(&mut self, number: u64, at: At) {
        self.end(number, Outcome::Refused, at);
    }

    /// Nobody knows whether the write happened.
    pub fn unknown(&mut self, number: u64, at: At) {
        self.tally.unknown += 1;
        self.end(number, Outcome::Unknown, at);
    }

    fn end(&mut self, number: u64, outcome: Outcome, at: At) {
        if let Some(write) = self.writes.get_mut(&number) {
            (write.end, write.outcome) = (Some(at), outcome);
        }
    }

    /// A look into the database, begun and ended at those times, showed this: the write has happened, answered or not.
    pub fn observed(&mut self, key: i64, version: u64, begun: At, at: At) {
        let Some(state) = self.keys.get_mut(&key) else { return };
        // Not there because it was deleted, or because it wasn't created yet?
        if version == GONE && state.delete_begun.is_none_or(|delete| delete > begun) {
            return;
        }
        state.observed.add(Step { version, number: u64::MAX, replica: SQL, begin: at, end: at });
    }

    /// The highest version of a key that was answered; a read may ask for it.
    pub fn floor(&self, key: i64) -> Option<u64> {
        self.keys.get(&key)?.acknowledged.last().map(|step| step.version).filter(|version| *version != GONE)
    }

    /// The database is about to be killed.
    pub fn database_dies(&mut self, at: At) {
        self.dead.push((at, None));
    }

    /// It answers again.
    pub fn database_is_back(&mut self, at: At) {
        for (_, end) in self.dead.iter_mut().filter(|(_, end)| end.is_none()) {
            *end = Some(at);
        }
    }

    /// The database lost its last commits, and has these rows since: key and version; and what these writes wrote. What
    /// was deleted before `kept` wasn't lost. Until [`BOUND`] after `at` replicas may answer what was lost, or what came
    /// back.
    pub fn went_back(&mut self, rows: &HashMap<i64, u64>, there: &HashSet<u64>, kept: At, at: At) {
        self.went_back = Some(at);
        let version = |key: &i64| rows.get(key).copied().unwrap_or(0);
        let mut deletes: HashMap<i64, At> = HashMap::new();
        for (number, write) in &mut self.writes {
            if write.kind == Kind::Delete {
                // It may be carried out yet.
                if let (Outcome::Pending, Some(key)) = (write.outcome, write.key) {
                    deletes.entry(key).or_insert(write.begin);
                }
                continue;
            }
            let lost = match write.outcome {
                Outcome::Done => write.key.is_some_and(|key| write.version > Some(version(&key))),
                // Never committed, lost, or replaced by what is there.
                Outcome::Unknown => !there.contains(number),
                Outcome::Pending | Outcome::Refused | Outcome::Lost => false,
            };
            if lost && write.end > Some(kept) {
                write.outcome = Outcome::Lost;
            }
        }
        for (key, state) in &mut self.keys {
            let newest = version(key);
            let gone = state.acknowledged.last().is_some_and(|step| step.version == GONE && step.end < kept);
            if newest > 0 || !gone {
                state.acknowledged.back_to(newest);
                state.observed.back_to(newest);
                state.delete_begun = deletes.get(key).copied();
            }
        }
    }

    /// A read that got no value: an error or a timeout.
    pub fn failed_read(&mut self) {
        self.tally.errors += 1;
    }

    /// A read was answered.
    pub fn read(&mut self, read: Read) {
        self.tally.reads += 1;
        let verdict = self.verdict(&read);
        for case in self.cases.iter_mut().filter(|case| case.is_about(&read)) {
            case.add(&read);
        }
        let state = self.keys.entry(read.key).or_default();
        state.reads[read.replica].add(read);
        if let Some((verdict, step)) = verdict {
            let mut case = Case::new(verdict, read.key, step, Some(&read));
            case.tell(&step, state.acknowledged.since(step.begin), &state.reads[read.replica]);
            self.violation(case);
        }
    }

    fn violation(&mut self, case: Case) {
        self.tally.violations += 1;
        if let Some(known) = self.cases.iter_mut().find(|known| known.same(&case)) {
            known.again(&case);
        } else if self.cases.len() < CASES {
            self.cases.push(case);
        }
    }

    /// What is wrong with the answer, and which write says so.
    fn verdict(&mut self, read: &Read) -> Option<(Verdict, Step)> {
        let nobody = Step { version: 0, number: 0, replica: read.replica, begin: read.start, end: read.start };
        let unsettled = self.went_back.is_some_and(|at| read.start < at + FOUND + BOUND);
        let state = self.keys.entry(read.key).or_default();
        let version = match read.seen {
            // The row may be gone as soon as its deletion began.
            Seen::Absent if state.delete_begun.is_some_and(|at| at <= read.end) => GONE,
            Seen::Absent => 0,
            Seen::Behind if unsettled => return None,
            Seen::Behind => return Some((Verdict::Behind, nobody)),
            Seen::Value { version, write } => {
                if let Some(wrong) = wrong_origin(&mut self.writes, self.next, read, version, write)
                    && !(unsettled && wrong == Verdict::Lost)
                {
                    return Some((wrong, nobody));
                }
                version
            }
        };
        if unsettled {
            return None;
        }
        if version < read.asked {
            let step = state.acknowledged.newer(version).next().copied().unwrap_or(nobody);
            return Some((Verdict::BelowAsked, step));
        }
        let older_than = |step: &&Step| step.end < read.start;
        let mut missed = state.acknowledged.newer(version).filter(older_than).peekable();
        if let Some(first) = missed.peek() {
            let tally = if first.replica == SQL { &mut self.tally.stale_of_sql } else { &mut self.tally.stale };
            tally.add(read.start - first.end);
        }
        let unheard = |step: &Step| {
            step.replica == SQL
                && self.dead.iter().any(|(from, to)| {
                    step.end + UNHEARD >= *from && to.is_none_or(|to| step.end <= to && read.start < to + FOUND + BOUND)
                })
        };
        let too_old = |step: &&Step| read.start - step.end > BOUND && !unheard(step);
        if let Some(step) = missed.find(too_old) {
            return Some((Verdict::Stale, *step));
        }
        let mut seen = state.observed.newer(version).filter(older_than);
        seen.find(too_old).map(|step| (Verdict::StaleUnanswered, *step))
    }

    /// Forgets what can't matter any more.
    pub fn prune(&mut self, now: At) {
        let Some(horizon) = now.checked_sub(KEPT) else { return };
        self.writes =
            self.writes.split_off(&self.writes.iter().find(|(_, w)| w.begin >= horizon).map_or(self.next, |(n, _)| *n));
        self.dead.retain(|(_, to)| to.is_none_or(|to| to > horizon));
        for key in self.keys.values_mut() {
            key.acknowledged.prune(horizon);
            key.observed.prune(horizon);
            key.reads.iter_mut().for_each(|reads| reads.prune(horizon));
        }
        // Deleted long ago, and nobody asks any more.
        self.keys.retain(|_, key| !key.is_over(horizon));
    }

    /// What was counted since the last call, and the histories of violations.
    pub fn take(&mut self) -> (Tally, Vec<Case>) {
        (std::mem::take(&mut self.tally), std::mem::take(&mut self.cases))
    }
}

/// A value has to come from a write of this key that was sent by then, always under the same version.
fn wrong_origin(
    writes: &mut BTreeMap<u64, Write>,
    next: u64,
    read: &Read,
    version: u64,
    number: u64,
) -> Option<Verdict> {
    if number >= next {
        return Some(Verdict::NobodyWrote);
    }
    // One that was forgotten is old; the version tells whether too old.
    let write = writes.get_mut(&number)?;
    let foreign = write.key.is_some_and(|key| key != read.key);
    if foreign || write.outcome == Outcome::Refused || write.begin > read.end || write.kind == Kind::Delete {
        return Some(Verdict::NobodyWrote);
    }
    if write.outcome == Outcome::Lost {
        return Some(Verdict::Lost);
    }
    (*write.version.get_or_insert(version) != version).then_some(Verdict::TwoVersions)
}

impl KeyReads {
    fn is_over(&self, horizon: At) -> bool {
        self.last().is_none_or(|read| read.end < horizon)
    }
}

impl Key {
    fn is_over(&self, horizon: At) -> bool {
        let deleted = self.acknowledged.last().is_some_and(|step| step.version == GONE && step.end < horizon);
        let never_born = self.acknowledged.last().is_none() && self.observed.last().is_none();
        (deleted || never_born) && self.reads.iter().all(|reads| reads.is_over(horizon))
    }
}
