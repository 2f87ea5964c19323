//! The document that `ops startup` answers with.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::collect::Evidence;
use super::exit_code::explain;
use super::program::Program;
use crate::container::facts::Facts;
use crate::diagnose::list;
use crate::findings::Finding;
use crate::output::Document;
use crate::output::units::{bytes, duration};

/// Why it did not start, and everything needed to see that for oneself.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Startup {
    /// The likeliest first; empty where it runs.
    pub causes: Vec<Finding>,
    /// The exit code in words, where it ended.
    pub explanation: Option<String>,
    /// What the engine knows about it.
    pub facts: Facts,
    /// The host's architecture.
    pub host: String,
    /// The file that it starts.
    pub program: Option<Program>,
    /// Its last log lines.
    pub logs: Vec<String>,
}

impl Startup {
    /// The evidence and what follows from it.
    pub fn new(evidence: Evidence, causes: Vec<Finding>) -> Self {
        let Evidence { facts, host, program, logs, .. } = evidence;
        let ended = matches!(facts.state.status.as_str(), "exited" | "dead" | "restarting");
        Self { causes, explanation: ended.then(|| explain(&facts.state)), facts, host, program, logs }
    }
}

impl Document for Startup {
    const KIND: &'static str = "startup";
}

impl fmt::Display for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, setup) = (&self.facts.state, &self.facts.configuration);
        match self.causes.split_first() {
            Some((likely, others)) => {
                write!(f, "Likely cause:\n{}", list(std::slice::from_ref(likely)))?;
                if !others.is_empty() {
                    write!(f, "Also:\n{}", list(others))?;
                }
            }
            None => writeln!(f, "Nothing kept it from starting.")?,
        }
        writeln!(f)?;
        let mut row = |name: &str, value: String| match value.is_empty() {
            true => Ok(()),
            false => writeln!(f, "{name:<12}{}", value.trim_end()),
        };
        row("container", format!("{} ({}), {}", self.facts.name, self.facts.id, self.facts.image))?;
        let up = state.uptime.map(|up| format!(", up {}", duration(up))).unwrap_or_default();
        row("status", format!("{}{up}, restarted {} times", state.status, state.restarts))?;
        row("exit code", self.explanation.clone().unwrap_or_default())?;
        row("engine", state.error.clone())?;
        row("command", setup.command.join(" "))?;
        if let Some(Program { path, machine: Some(machine), .. }) = &self.program {
            row("program", format!("{path}, {machine} on {}", self.host))?;
        }
        row("user", if setup.root() { "root".to_owned() } else { setup.user.clone() })?;
        let or_none = |value: Option<String>| value.unwrap_or("none".to_owned());
        let memory = or_none(setup.memory_limit.map(bytes));
        let cpus = or_none(setup.cpu_quota.map(|quota| quota.to_string()));
        let pids = or_none(setup.pids_limit.map(|pids| pids.to_string()));
        row("limits", format!("memory {memory}, CPUs {cpus}, processes {pids}"))?;
        row("restart", setup.restart.clone())?;
        row("health", state.health.clone().unwrap_or_default())?;
        for probe in &state.probes {
            row("  check", format!("{} exit code {}: {}", probe.at, probe.exit_code, probe.output))?;
        }
        for (network, address) in &setup.networks {
            row("network", format!("{network} {address}"))?;
        }
        for port in &setup.ports {
            row("port", port.clone())?;
        }
        for mount in &setup.mounts {
            let mode = if mount.writable { "rw" } else { "ro" };
            row("mount", format!("{} -> {} ({mode})", mount.source, mount.destination))?;
        }
        for (name, value) in &setup.environment {
            row("environment", format!("{name}={value}"))?;
        }
        writeln!(f, "\nThe last {} log lines:", self.logs.len())?;
        self.logs.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
