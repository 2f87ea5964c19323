//! What is wrong with a container, judged from facts alone.
//!
//! A rule is a function from facts to at most one finding. It asks nobody and reads no clock, so every rule is tested
//! on recorded facts. `docs/diagnosing.md` has a section for each id.

mod configuration;
mod load;
mod state;

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::facts::Facts;
use crate::exit::Exit;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Nothing, or what can wait.
    Low,
    /// Should be looked at.
    Medium,
    /// Hurts now, or soon.
    High,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
        })
    }
}

impl Severity {
    /// What a command ends with whose worst finding is this.
    pub fn exit(self) -> Exit {
        match self {
            Self::Low => Exit::Done,
            Self::Medium => Exit::Warnings,
            Self::High => Exit::Critical,
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Stable, for programs.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen.
    pub evidence: String,
    /// What to do next.
    pub advice: String,
    /// Where more is written.
    pub link: String,
}

impl Finding {
    pub(crate) fn new(id: &str, severity: Severity, evidence: impl Into<String>, advice: &str) -> Self {
        let link = format!("docs/diagnosing.md#{id}");
        Self { id: id.to_owned(), severity, evidence: evidence.into(), advice: advice.to_owned(), link }
    }
}

/// From where on a number is a finding.
#[derive(Debug, Clone, PartialEq, clap::Args)]
#[command(next_help_heading = "Thresholds")]
pub struct Thresholds {
    /// CPU, in percent of the quota, else of one CPU.
    #[arg(long = "cpu", value_name = "PERCENT", default_value_t = 80.0)]
    pub cpu: f64,
    /// Enforcement periods in which it had to wait, in percent.
    #[arg(long = "throttled", value_name = "PERCENT", default_value_t = 25.0)]
    pub throttled: f64,
    /// Memory that can't be reclaimed, in percent of the limit: a warning.
    #[arg(long = "memory-warning", value_name = "PERCENT", default_value_t = 85.0)]
    pub memory_warning: f64,
    /// The same: critical.
    #[arg(long = "memory", value_name = "PERCENT", default_value_t = 90.0)]
    pub memory: f64,
    /// Block I/O, and network traffic, in MB/s.
    #[arg(long = "io", value_name = "MB/S", default_value_t = 100.0)]
    pub io: f64,
    /// Restarts count as a loop when the last start was less than this ago.
    #[arg(long = "restart-window", value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    pub restart_window: Duration,
    /// Processes and threads, in percent of the limit.
    #[arg(long = "pids", value_name = "PERCENT", default_value_t = 90.0)]
    pub pids: f64,
    /// The service's answers with status 500 and above, in percent.
    #[arg(long = "service-errors", value_name = "PERCENT", default_value_t = 5.0)]
    pub service_errors: f64,
}

impl Thresholds {
    /// What `ops memory` advises about.
    pub fn memory_advice(&self, facts: &Facts) -> Option<Finding> {
        load::memory(facts, self)
    }

    /// What `ops monitor` tells of as it happens.
    pub fn alerts(&self, facts: &Facts) -> Vec<Finding> {
        [load::memory(facts, self), load::cpu(facts, self)].into_iter().flatten().collect()
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            cpu: 80.0,
            throttled: 25.0,
            memory_warning: 85.0,
            memory: 90.0,
            io: 100.0,
            restart_window: Duration::from_secs(600),
            pids: 90.0,
            service_errors: 5.0,
        }
    }
}

type Rule = fn(&Facts, &Thresholds) -> Option<Finding>;

/// What is wrong, worst first; of equally bad ones, what explains others first. How a job was set up that has done its work
/// hurts nobody any more.
pub fn judge(facts: &Facts, thresholds: &Thresholds) -> Vec<Finding> {
    let rules = state::RULES.iter().chain(load::RULES);
    let mut findings: Vec<_> = rules.filter_map(|rule| rule(facts, thresholds)).collect();
    if facts.state.status != "exited" || facts.state.exit_code != 0 {
        findings.extend(configuration::findings(facts, thresholds));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Low)
}
