//! `ops memory`: what a container uses memory for, and whether it leaks.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::record::{Seen, record};
use super::save;
use super::trend::{Trend, Verdict, judge};
use crate::container::collect;
use crate::container::load::{Load, percent};
use crate::container::sample::{Memory, Sample};
use crate::engine::connect::{EngineArgs, connect};
use crate::exit::{Exit, Failure, Result};
use crate::findings::{Finding, Severity, Thresholds, worst};
use crate::output::table::table;
use crate::output::units::{bytes, duration};
use crate::output::{Document, Output};

/// What `ops memory` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Which container, and for how long.
    #[command(flatten)]
    pub watch: super::Args,
    /// Memory that can't be reclaimed, in percent of the limit: a warning.
    #[arg(long, value_name = "PERCENT", default_value_t = 80.0, help_heading = "Thresholds")]
    pub memory_warning: f64,
    /// The same: critical.
    #[arg(long, value_name = "PERCENT", default_value_t = 90.0, help_heading = "Thresholds")]
    pub memory: f64,
    /// Growth that is a leak, in MB a minute.
    #[arg(long, value_name = "MB/MIN", default_value_t = 1.0, help_heading = "Thresholds")]
    pub leak: f64,
}

/// How memory developed, and what follows.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct MemoryReport {
    /// The container's name.
    pub name: String,
    /// Seconds between the first sample and the last.
    pub seconds: f64,
    /// Bytes that it may have.
    pub limit: Option<u64>,
    /// At the begin.
    pub first: Memory,
    /// At the end.
    pub last: Memory,
    /// The largest working set.
    pub peak: u64,
    /// Does it leak?
    pub verdict: Verdict,
    /// Growth of anonymous memory, in bytes.
    pub trend: Option<Trend>,
    /// Seconds until the limit is reached, if it goes on so.
    pub time_left: Option<f64>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// It was ended before its time.
    pub interrupted: bool,
    /// All samples; only in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

/// Records, judges, shows.
pub async fn run(thresholds: &Args, engine: &EngineArgs, output: &Output) -> Result<Exit> {
    let args = &thresholds.watch;
    let docker = connect(engine).await?;
    let id = &args.container;
    let mut facts = collect::one(&docker, id, Duration::ZERO).await?;
    let every = args.every.unwrap_or(Duration::from_secs(1));
    let show = |seen: Seen<'_>| {
        if let Seen::Sample(Sample { memory, .. }) = seen {
            output.ticker(format!("working set {}, anonymous {}", bytes(memory.working_set), bytes(memory.anon)));
        }
    };
    let recording = record(&docker, id, args.length, every, show).await?;
    // Memory begins anew with each start: only the last run is judged.
    let runs = recording.samples.chunk_by(|a, b| b.cpu_seconds >= a.cpu_seconds);
    let samples = runs.last().unwrap_or_default();
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return Err(Failure::new(Exit::Precondition, format!("{id} doesn't run: there is nothing to measure")));
    };
    facts.load = Load::between(first, last);
    let limit = facts.configuration.memory_limit;
    let points: Vec<_> = samples.iter().map(|sample| (sample.at, sample.memory.anon as f64)).collect();
    let (verdict, trend) = judge(&points, thresholds.leak * 1e6);
    let growing = trend.filter(|_| verdict == Verdict::Leak).map(|trend| trend.per_minute / 60.0);
    let free = limit.map(|limit| limit.saturating_sub(last.memory.unreclaimable));
    let time_left = growing.zip(free).map(|(rate, free)| free as f64 / rate);
    let &Args { memory_warning, memory, .. } = thresholds;
    let advice = Thresholds { memory_warning, memory, ..Thresholds::default() };
    let mut findings: Vec<_> = advice.memory_advice(&facts).into_iter().collect();
    if let (Verdict::Leak, Some(trend)) = (verdict, trend) {
        findings.push(leak(trend, time_left));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut report = MemoryReport {
        name: facts.name,
        seconds: last.at - first.at,
        limit,
        first: first.memory,
        last: last.memory,
        peak: samples.iter().map(|sample| sample.memory.working_set).max().unwrap_or(0),
        verdict,
        trend,
        time_left,
        findings,
        interrupted: recording.interrupted,
        samples: Vec::new(),
    };
    output.ticker("");
    output.show(&report)?;
    let exit = worst(&report.findings).exit();
    if let Some(path) = &args.report {
        report.samples = recording.samples;
        save(path, &report).await?;
    }
    Ok(exit)
}

/// Critical when somebody must do something within the hour.
fn leak(Trend { per_minute, p }: Trend, time_left: Option<f64>) -> Finding {
    let severity = if time_left.is_some_and(|left| left < 3600.0) { Severity::High } else { Severity::Medium };
    let left = time_left.map(|left| format!(", {} to the limit", duration(left))).unwrap_or_default();
    let evidence = format!("anonymous memory grows by {:.1} MB a minute (p = {p:.1e}){left}", per_minute / 1e6);
    let advice = "Compare heap profiles of two moments; until it is found, restart before the limit is reached.";
    Finding::new("memory-leak", severity, evidence, advice)
}

impl Document for MemoryReport {
    const KIND: &'static str = "memory";
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |name: &str, get: fn(&Memory) -> u64| {
            let share = self.limit.map(|limit| format!("{:.0} %", percent(get(&self.last), limit)));
            [name.to_owned(), bytes(get(&self.first)), bytes(get(&self.last)), share.unwrap_or("-".to_owned())]
        };
        let mut rows = vec![
            row("usage", |memory| memory.usage),
            row("working set", |memory| memory.working_set),
            row("anonymous", |memory| memory.anon),
            row("file cache", |memory| memory.file),
            row("shared, tmpfs", |memory| memory.shared),
        ];
        if self.last.slab.is_some() {
            rows.push(row("slab", |memory| memory.slab.unwrap_or(0)));
        }
        let limit = self.limit.map_or("none".to_owned(), bytes);
        let (seconds, peak) = (duration(self.seconds), bytes(self.peak));
        writeln!(f, "{}: {seconds}, limit {limit}, largest working set {peak}\n", self.name)?;
        f.write_str(&table(["MEMORY", "FIRST", "LAST", "OF LIMIT"], &rows))?;
        let trend =
            self.trend.map(|Trend { per_minute, p }| format!("{:+.2} MB a minute, p = {p:.1e}", per_minute / 1e6));
        let verdict = match self.verdict {
            Verdict::Leak => "it leaks",
            Verdict::NoLeak => "no leak",
            Verdict::TooShort => "too short to tell whether it leaks",
        };
        writeln!(f, "\n{verdict} ({})", trend.unwrap_or("fewer than 30 samples".to_owned()))?;
        f.write_str(&crate::diagnose::list(&self.findings))
    }
}
