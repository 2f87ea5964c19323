//! What people read: a line per fault, histories, totals.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use crate::judge::model::Staleness;
use crate::judge::{Case, Tally};

/// Writes one line to stdout.
pub fn say(line: impl Display) {
    // A closed stdout is no reason to stop.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

pub fn heading() {
    say(format_args!(
        "{:<42} {:>8} {:>7} {:>7} {:>7} {:>9} {:>7} {:>28} {:>28}",
        "fault", "reads", "errors", "writes", "unknown", "VIOLATED", "stale", "p50, p99, longest", "of plain SQL"
    ));
}

pub fn row(name: &str, tally: &Tally) {
    let Tally { reads, errors, writes, unknown, violations, stale, stale_of_sql } = tally;
    let counts = format!("{reads:>8} {errors:>7} {writes:>7} {unknown:>7} {violations:>9}");
    let all = stale.len() + stale_of_sql.len();
    say(format_args!("{name:<42} {counts} {all:>7} {:>28} {:>28}", quantiles(stale), quantiles(stale_of_sql)));
}

fn quantiles(stale: &Staleness) -> String {
    [50, 99, 100].map(|percent| time(stale.quantile(percent))).join(" ")
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
writer before they were sent; p50, p99, longest: how long before, behind writes that a replica answered and behind
those by plain SQL. VIOLATED: later than 1 s; or a value that nobody wrote, that the database has lost more than 2 s ago,
or below X-Min-Version.";
