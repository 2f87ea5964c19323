//! What people read: a line per fault, histories, totals.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use crate::judge::{Case, Tally};

/// Writes one line to stdout.
pub fn say(line: impl Display) {
    // A closed stdout is no reason to stop.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

pub fn heading() {
    say(format_args!(
        "{:<19} {:>8} {:>7} {:>7} {:>7} {:>9} {:>7} {:>9} {:>9} {:>9}",
        "fault", "reads", "errors", "writes", "unknown", "VIOLATED", "stale", "p50", "p99", "longest"
    ));
}

pub fn row(name: &str, tally: &Tally) {
    let Tally { reads, errors, writes, unknown, violations, stale } = tally;
    let [p50, p99, longest] = [50, 99, 100].map(|percent| time(stale.quantile(percent)));
    say(format_args!(
        "{name:<19} {reads:>8} {errors:>7} {writes:>7} {unknown:>7} {violations:>9} {:>7} {p50:>9} {p99:>9} {longest:>9}",
        stale.len()
    ));
}

fn time(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3))
}

pub fn cases(name: &str, seed: u64, cases: &[Case]) {
    for case in cases {
        say(format_args!("violation in {name}, seed {seed}: {case}"));
    }
}

/// How to read the table.
pub const LEGEND: &str = "\
reads: answered with a value or 404; errors: with anything else or not at all. writes: answered; unknown: 5xx or no
answer, so they may or may not have happened. stale: reads that returned an older value than had been answered to a
writer before they were sent; p50, p99, longest: how long before. VIOLATED: later than 1 s, or 5 s where the replica
that wrote or the one that read couldn't reach Redis in between; or a value that nobody wrote, or below X-Min-Version.";
