//! The smallest history that shows a violation: one write, and one replica's reads of that key around it.

use std::fmt;
use std::time::Duration;

use super::model::{At, BOUND, GONE, KeyReads, Read, SQL, Seen, Step, Verdict};

/// Lines after which a history isn't small any more.
const LINES: usize = 24;
/// Reads before the write that are shown.
const BEFORE: Duration = Duration::from_millis(300);

/// One violation.
pub struct Case {
    pub verdict: Verdict,
    key: i64,
    replica: usize,
    version: u64,
    /// The longest staleness among answers that show it.
    worst: Duration,
    times: u64,
    zero: At,
    lines: Vec<Line>,
    /// Further reads belong to it until one is fresh.
    open: bool,
}

/// Answers that are alike, one after the other.
struct Line {
    first: At,
    last: At,
    count: u64,
    text: String,
}

impl Case {
    pub fn new(verdict: Verdict, key: i64, step: Step, read: Option<&Read>) -> Self {
        let worst = read.map_or(Duration::ZERO, |read| read.start.saturating_sub(step.end));
        let replica = read.map_or(step.replica, |read| read.replica);
        let open = read.is_some();
        let (version, zero) = (step.version, step.end);
        Self { verdict, key, replica, version, worst, times: 1, zero, lines: Vec::new(), open }
    }

    /// Whether both show the same: one entry of one replica is too old.
    pub fn same(&self, other: &Self) -> bool {
        (self.verdict, self.key, self.replica) == (other.verdict, other.key, other.replica)
    }

    pub fn again(&mut self, other: &Self) {
        self.times += 1;
        self.worst = self.worst.max(other.worst);
    }

    pub fn is_about(&self, read: &Read) -> bool {
        self.open && (self.key, self.replica) == (read.key, read.replica)
    }

    /// Tells how it came to it: the write, others of the key since, the replica's reads.
    pub fn tell<'a>(&mut self, step: &Step, writes: impl Iterator<Item = &'a Step>, reads: &KeyReads) {
        if step.number == u64::MAX {
            self.line(step.end, format!("the database shows {}", version(step.version)));
        }
        for write in writes.filter(|write| write.version >= step.version).take(3) {
            self.line(write.begin, format!("write {} begins {}", write.number, by(write.replica)));
            self.line(write.end, format!("write {} answered: {}", write.number, version(write.version)));
        }
        let from = step.begin.saturating_sub(BEFORE);
        for read in reads.iter().filter(|read| read.start >= from) {
            self.add(read);
        }
        self.lines.sort_by_key(|line| line.first);
    }

    /// Adds a read of this key on this replica.
    pub fn add(&mut self, read: &Read) {
        let asked = if read.asked > 0 { format!(", asked for {} or later", read.asked) } else { String::new() };
        let found = match read.seen {
            Seen::Value { version, write } => format!("version {version} of write {write}"),
            Seen::Absent => "not found".to_owned(),
            Seen::Behind => "409, not reached".to_owned(),
        };
        let text = format!("GET on replica {}: {found}, from {}{asked}", read.replica + 1, read.tier);
        let fresh = match read.seen {
            Seen::Value { version, .. } => version >= self.version,
            Seen::Absent => self.version == GONE,
            Seen::Behind => false,
        };
        self.line(read.start, text);
        if fresh && read.start > self.zero + BOUND {
            self.open = false;
        }
    }

    fn line(&mut self, at: At, text: String) {
        let full = self.lines.len() >= LINES;
        match self.lines.last_mut() {
            Some(line) if line.text == text => (line.last, line.count) = (at, line.count + 1),
            _ if !full => self.lines.push(Line { first: at, last: at, count: 1, text }),
            _ => self.open = false,
        }
    }
}

fn version(version: u64) -> String {
    if version == GONE { "deleted".to_owned() } else { format!("version {version}") }
}

fn by(replica: usize) -> String {
    if replica == SQL { "by plain SQL".to_owned() } else { format!("on replica {}", replica + 1) }
}

/// Milliseconds after the write was answered.
fn relative(at: At, zero: At) -> String {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    format!("{:+10.1} ms", millis(at) - millis(zero))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.verdict {
            Verdict::Stale => "an older value than was answered to a writer",
            Verdict::StaleUnanswered => "an older value than the database had shown",
            Verdict::NobodyWrote => "a value that nobody wrote to it",
            Verdict::Lost => "a value that the database has lost",
            Verdict::TwoVersions => "one write under two versions",
            Verdict::BelowAsked => "a version below the one asked for",
            Verdict::Behind => "409 for a version that had been answered",
        };
        let (key, replica, worst) = (self.key, self.replica + 1, self.worst.as_secs_f64());
        writeln!(
            f,
            "user {key}, replica {replica}: {what} ({} answers; longest {worst:.3} s after, allowed {:?})",
            self.times, BOUND
        )?;
        for line in &self.lines {
            let first = relative(line.first, self.zero);
            if line.count == 1 {
                writeln!(f, "  {first}                  {}", line.text)?;
            } else {
                writeln!(f, "  {first} …{}  {}, {} times", relative(line.last, self.zero), line.text, line.count)?;
            }
        }
        Ok(())
    }
}
