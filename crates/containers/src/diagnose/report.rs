//! The document that `ops diagnose` answers with.

use std::cmp::Reverse;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::facts::{Facts, Place, State};
use crate::container::load::{Load, percent};
use crate::container::service::Service;
use crate::findings::{Finding, Severity, worst};
use crate::output::Document;
use crate::output::table::fitted;
use crate::output::units::{bytes, rate};

/// Every container that was examined, the sickest first.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// The worst of all.
    pub severity: Severity,
    /// One for each container.
    pub containers: Vec<Examined>,
    /// Those that couldn't be examined: they vanished meanwhile, or never were.
    pub gone: Vec<String>,
}

/// One container and what is wrong with it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Examined {
    /// Its name.
    pub name: String,
    /// The first 12 digits of its id.
    pub id: String,
    /// Its image.
    pub image: String,
    /// created, running, paused, restarting, exited or dead; where it runs with its health.
    pub status: String,
    /// The worst of its findings.
    pub severity: Severity,
    /// What it does; none where it doesn't run.
    pub load: Option<Load>,
    /// Its exit code, kills, restarts and last health checks.
    pub state: State,
    /// What it says about itself, where it is one of the service.
    pub service: Option<Service>,
    /// Its slot in the balancer, where it has one.
    pub slot: Option<Place>,
    /// CPUs that it may use.
    pub cpu_quota: Option<f64>,
    /// Bytes of memory that it may have.
    pub memory_limit: Option<u64>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

impl Examined {
    /// A container's facts and findings.
    pub fn new(facts: Facts, findings: Vec<Finding>) -> Self {
        let health = facts.state.health.as_ref().filter(|_| facts.state.status == "running");
        let health = health.map(|health| format!(" ({health})")).unwrap_or_default();
        Self {
            status: format!("{}{health}", facts.state.status),
            state: facts.state,
            service: facts.service,
            slot: facts.slot,
            severity: worst(&findings),
            name: facts.name,
            id: facts.id,
            image: facts.image,
            load: facts.load,
            cpu_quota: facts.configuration.cpu_quota,
            memory_limit: facts.configuration.memory_limit,
            findings,
        }
    }

    fn row(&self) -> [String; 9] {
        let cell = |text: &dyn Fn(&Load) -> String| self.load.as_ref().map_or("-".to_owned(), text);
        let quota = self.cpu_quota.map(|quota| format!("/{quota}")).unwrap_or_default();
        let of_limit = |load: &Load| match self.memory_limit {
            Some(limit) => format!("{:.0} % of {}", percent(load.memory.working_set, limit), bytes(limit)),
            None => "-".to_owned(),
        };
        [
            self.name.clone(),
            self.status.clone(),
            cell(&|load| format!("{:.2}{quota}", load.cpus)),
            cell(&|load| bytes(load.memory.working_set)),
            cell(&of_limit),
            cell(&|load| rate(load.received_rate + load.sent_rate)),
            cell(&|load| rate(load.read_rate + load.write_rate)),
            cell(&|load| load.pids.to_string()),
            self.severity.to_string(),
        ]
    }
}

impl Diagnosis {
    /// Puts the sickest first.
    pub fn new(mut containers: Vec<Examined>, mut gone: Vec<String>) -> Self {
        containers.sort_by(|a, b| (Reverse(a.severity), &a.name).cmp(&(Reverse(b.severity), &b.name)));
        gone.sort();
        let severity = containers.iter().map(|one| one.severity).max().unwrap_or(Severity::Low);
        Self { severity, containers, gone }
    }
}

impl Document for Diagnosis {
    const KIND: &'static str = "diagnosis";
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.containers.iter().map(Examined::row).collect();
        let headings =
            ["CONTAINER", "STATUS", "CPUS", "WORKING SET", "OF LIMIT", "NETWORK", "BLOCK I/O", "PIDS", "SEVERITY"];
        f.write_str(&fitted(headings, &rows, f.width(), &["PIDS", "BLOCK I/O", "NETWORK", "OF LIMIT"]))?;
        let list = if self.containers.len() > 1 { brief } else { list };
        for one in self.containers.iter().filter(|one| !one.findings.is_empty()) {
            write!(f, "\n{} ({})\n{}", one.name, one.image, list(&one.findings))?;
        }
        for name in &self.gone {
            writeln!(f, "\n{name} could not be examined: there is no such container, or it vanished meanwhile")?;
        }
        Ok(())
    }
}

/// Of many containers: what can wait only by name, in one line.
fn brief(findings: &[Finding]) -> String {
    let (low, bad): (Vec<_>, Vec<_>) = findings.iter().cloned().partition(|one| one.severity == Severity::Low);
    let names: Vec<_> = low.iter().map(|finding| finding.id.as_str()).collect();
    let low = if names.is_empty() { String::new() } else { format!("  {:<6}  {}\n", Severity::Low, names.join(", ")) };
    list(&bad) + &low
}

/// Findings as a list, with the next step under each.
pub fn list(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|Finding { id, severity, evidence, advice, link }| {
        // Weaknesses that can wait take one line each.
        match severity {
            Severity::Low => format!("  {severity:<6}  {id}: {evidence}. {advice}\n"),
            Severity::Medium | Severity::High => {
                format!("  {severity:<6}  {id}: {evidence}\n          {advice} ({link})\n")
            }
        }
    });
    lines.collect()
}
