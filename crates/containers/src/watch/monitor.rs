//! `ops monitor`: a container over time, with alerts as they happen and a report at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::record::{Seen, record};
use super::save;
use crate::container::collect;
use crate::container::facts::Facts;
use crate::container::load::Load;
use crate::container::sample::Sample;
use crate::engine::connect::{EngineArgs, connect};
use crate::exit::{Exit, Failure, Result};
use crate::findings::{Finding, Severity, Thresholds};
use crate::output::table::table;
use crate::output::units::{bytes, duration, rate};
use crate::output::{Document, Output};

/// Everything that was seen.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Monitoring {
    /// The container's name.
    pub name: String,
    /// Seconds between the first sample and the last.
    pub seconds: f64,
    /// Average, peak and percentiles of each quantity.
    pub quantities: BTreeMap<String, Distribution>,
    /// What happened, in order.
    pub alerts: Vec<Alert>,
    /// It was ended before its time.
    pub interrupted: bool,
    /// The container was removed meanwhile.
    pub gone: bool,
    /// All rates; only in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Load>,
}

/// How one quantity was distributed over the samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// The mean.
    pub average: f64,
    /// Half of the samples are at most this.
    pub p50: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The largest.
    pub peak: f64,
}

/// A finding, and when it began.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// Seconds since 1970, by the engine's clock.
    pub at: f64,
    /// What.
    pub finding: Finding,
}

impl Distribution {
    /// Nearest rank; all zero of nothing.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| values.get((values.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Self {
            average: values.iter().sum::<f64>() / values.len().max(1) as f64,
            p50: rank(50).unwrap_or(0.0),
            p95: rank(95).unwrap_or(0.0),
            p99: rank(99).unwrap_or(0.0),
            peak: rank(100).unwrap_or(0.0),
        }
    }
}

/// What `ops monitor` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Which container, and for how long.
    #[command(flatten)]
    pub watch: super::Args,
    /// An alert above this much CPU, in percent of the quota, else of one CPU.
    #[arg(long, value_name = "PERCENT", default_value_t = 90.0, help_heading = "Thresholds")]
    pub cpu: f64,
    /// An alert above this much memory that can't be reclaimed, in percent of the limit.
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0, help_heading = "Thresholds")]
    pub memory: f64,
}

/// Turns what is seen into alerts, each once until it is over.
#[derive(Debug)]
pub struct Watcher {
    facts: Facts,
    thresholds: Thresholds,
    last: Option<Sample>,
    lasting: BTreeSet<String>,
    /// Rates between samples.
    pub loads: Vec<Load>,
    /// In order.
    pub alerts: Vec<Alert>,
}

impl Watcher {
    /// Of a container with this configuration.
    pub fn new(facts: Facts, thresholds: Thresholds) -> Self {
        Self { facts, thresholds, last: None, lasting: BTreeSet::new(), loads: Vec::new(), alerts: Vec::new() }
    }

    /// Alerts that began with this.
    pub fn see(&mut self, seen: &Seen<'_>) -> &[Alert] {
        let before = self.alerts.len();
        match seen {
            Seen::Sample(sample) => self.sample(sample),
            Seen::Event(action, at) => {
                let finding = event(action);
                self.alerts.extend(finding.map(|finding| Alert { at: *at, finding }));
            }
        }
        &self.alerts[before..]
    }

    fn sample(&mut self, sample: &Sample) {
        let load = self.last.replace(sample.clone()).and_then(|last| Load::between(&last, sample));
        self.facts.load.clone_from(&load);
        let findings = self.thresholds.alerts(&self.facts);
        let now: BTreeSet<_> = findings.iter().map(|finding| finding.id.clone()).collect();
        let began = findings.into_iter().filter(|finding| !self.lasting.contains(&finding.id));
        self.alerts.extend(began.map(|finding| Alert { at: sample.at, finding }));
        self.lasting = now;
        self.loads.extend(load);
    }
}

/// What an event of the engine's tells, if it is bad.
fn event(action: &str) -> Option<Finding> {
    let advice = "`ops startup` says why it ended.";
    match action {
        "oom" => Some(Finding::new("oom-killed", Severity::High, "the kernel killed a process for memory", advice)),
        "start" => Some(Finding::new("restarted", Severity::Medium, "it was started again", advice)),
        "die" => Some(Finding::new("exited", Severity::Medium, "it ended", advice)),
        "health_status: unhealthy" => {
            let advice = "`ops diagnose` shows the health check's output.";
            Some(Finding::new("unhealthy", Severity::High, "its health check fails", advice))
        }
        _ => None,
    }
}

/// Records, alerts, shows; the report is written however it ends.
pub async fn run(Args { watch: args, cpu, memory }: &Args, engine: &EngineArgs, output: &Output) -> Result<Exit> {
    let docker = connect(engine).await?;
    let facts = collect::one(&docker, &args.container, Duration::ZERO).await?;
    let name = facts.name.clone();
    let thresholds = Thresholds { cpu: *cpu, memory_warning: *memory, memory: *memory, ..Thresholds::default() };
    let mut watcher = Watcher::new(facts, thresholds);
    let every = args.every.unwrap_or(Duration::from_secs(10));
    let recording = record(&docker, &args.container, args.length, every, |seen| {
        for Alert { finding, .. } in watcher.see(&seen) {
            output.progress(format!("{} {}: {}", finding.severity, finding.id, finding.evidence));
        }
        if let (Seen::Sample(_), Some(load)) = (seen, watcher.loads.last()) {
            output.progress(line(load));
        }
    })
    .await?;
    // One that is started again and again may end before its first sample: then there are alerts only.
    if recording.samples.is_empty() && watcher.alerts.is_empty() {
        return Err(Failure::new(Exit::Precondition, format!("{name} didn't run: there was nothing to see")));
    }
    let seconds = recording.samples.first().zip(recording.samples.last()).map_or(0.0, |(a, b)| b.at - a.at);
    let mut monitoring = Monitoring {
        seconds,
        quantities: quantities(&watcher.loads),
        alerts: watcher.alerts,
        interrupted: recording.interrupted,
        gone: recording.gone,
        samples: Vec::new(),
        name,
    };
    output.show(&monitoring)?;
    let worst = monitoring.alerts.iter().map(|alert| alert.finding.severity).max().unwrap_or(Severity::Low);
    let path = args.report.clone().unwrap_or_else(|| PathBuf::from(format!("monitor-{}.json", monitoring.name)));
    monitoring.samples = watcher.loads;
    save(&path, &monitoring).await?;
    output.progress(format!("all samples are in {}", path.display()));
    Ok(worst.exit())
}

fn line(load: &Load) -> String {
    let (network, block) = (load.received_rate + load.sent_rate, load.read_rate + load.write_rate);
    let set = bytes(load.memory.working_set);
    format!("{:.2} CPUs, working set {set}, network {}, block I/O {}", load.cpus, rate(network), rate(block))
}

type Quantity = (&'static str, fn(&Load) -> f64);

fn quantities(loads: &[Load]) -> BTreeMap<String, Distribution> {
    let each: [Quantity; 5] = [
        ("cpus", |load| load.cpus),
        ("throttled_percent", |load| load.throttled_percent),
        ("working_set_bytes", |load| load.memory.working_set as f64),
        ("network_bytes_per_second", |load| load.received_rate + load.sent_rate),
        ("block_bytes_per_second", |load| load.read_rate + load.write_rate),
    ];
    let of = |get: fn(&Load) -> f64| Distribution::of(loads.iter().map(get).collect());
    each.into_iter().map(|(name, get)| (name.to_owned(), of(get))).collect()
}

impl Document for Monitoring {
    const KIND: &'static str = "monitoring";
}

impl fmt::Display for Monitoring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.quantities.iter().map(|(name, of)| {
            let cell = |value: f64| match name.as_str() {
                "working_set_bytes" => format!("{:.1} MiB", value / 1_048_576.0),
                name if name.ends_with("per_second") => rate(value),
                _ => format!("{value:.2}"),
            };
            let label = match name.as_str() {
                "cpus" => "CPUs",
                "throttled_percent" => "throttled %",
                "working_set_bytes" => "working set",
                "network_bytes_per_second" => "network",
                _ => "block I/O",
            };
            [label.to_owned(), cell(of.average), cell(of.p50), cell(of.p95), cell(of.p99), cell(of.peak)]
        });
        let rows: Vec<_> = rows.collect();
        let ended = if self.gone { ", then it was removed" } else { "" };
        writeln!(f, "{}: {}{ended}, {} alerts\n", self.name, duration(self.seconds), self.alerts.len())?;
        f.write_str(&table(["", "AVERAGE", "P50", "P95", "P99", "PEAK"], &rows))?;
        let findings: Vec<_> = self.alerts.iter().map(|alert| alert.finding.clone()).collect();
        f.write_str(&crate::diagnose::list(&findings))
    }
}
