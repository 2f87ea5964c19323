//! The deploy's state as Prometheus text, for node-exporter's textfile collector.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::journal::{Deploy, unix_now};
use super::{State, replace};
use crate::exit::{Exit, OrExit, Result};

impl State {
    /// Replaces the file.
    pub fn export(&self, deploy: &Deploy, path: &Path) -> Result<()> {
        let mut outcomes = BTreeMap::<String, u64>::new();
        let ended = self.audited()?.0.into_iter().filter_map(|record| Some((record.deploy, record.outcome?)));
        // More than one line may come after the end.
        for (_, outcome) in ended.collect::<BTreeSet<_>>() {
            *outcomes.entry(outcome).or_default() += 1;
        }
        let phase = deploy.phase.name();
        let progress = u8::from(!deploy.phase.is_final());
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, value: String| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{value}\n");
        };
        gauge("ops_deploy_in_progress", "1 while a deploy is under way", format!(" {progress}"));
        gauge(
            "ops_deploy_phase_started_timestamp_seconds",
            "When the phase began",
            format!("{{phase=\"{phase}\"}} {}", unix_now()),
        );
        gauge("ops_canary_weight", "Percent of the traffic meant for the new version", format!(" {}", deploy.share));
        gauge(
            "ops_expected_replicas",
            "Replicas that are meant to take traffic",
            format!(" {}", deploy.active().len()),
        );
        text.push_str("# HELP ops_deploys_total Ended deploys\n# TYPE ops_deploys_total counter\n");
        for (outcome, count) in outcomes {
            let _ = writeln!(text, "ops_deploys_total{{outcome=\"{outcome}\"}} {count}");
        }
        replace(path, text.as_bytes()).or_exit(Exit::Precondition, format!("can't write {}", path.display()))
    }
}
