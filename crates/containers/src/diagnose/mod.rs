//! `ops diagnose`: what is wrong with these containers, the worst first.

mod report;

use std::net::IpAddr;
use std::time::Duration;

pub use report::{Diagnosis, Examined, list};

use crate::container::collect;
use crate::container::facts::Place;
use crate::engine::connect::{EngineArgs, connect};
use crate::exit::{Exit, Failure, Result};
use crate::findings::{Thresholds, judge};
use crate::output::Output;

/// What `ops diagnose` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or ids; all containers if there are none.
    pub containers: Vec<String>,
    /// Only containers with this label, `name` or `name=value`.
    #[arg(long, conflicts_with = "containers")]
    pub label: Option<String>,
    /// How long rates are measured.
    #[arg(long = "for", value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    pub window: Duration,
    /// What counts as too much.
    #[command(flatten)]
    pub thresholds: Thresholds,
}

/// Examines, judges, shows. `slots`: where the balancer sends requests, if there is one.
pub async fn run(args: &Args, engine: &EngineArgs, slots: &[(IpAddr, Place)], output: &Output) -> Result<Exit> {
    let docker = connect(engine).await?;
    let ids = collect::choose(&docker, &args.containers, args.label.as_deref()).await?;
    let mut containers = Vec::new();
    let mut gone: Vec<(String, Failure)> = Vec::new();
    for (id, facts) in collect::examine(&docker, &ids, args.window).await? {
        match facts {
            Ok(mut facts) => {
                // The balancer reaches it in one of its networks.
                let own: Vec<_> = facts.configuration.addresses().collect();
                let slot = slots.iter().find(|(slot, _)| own.contains(slot));
                facts.slot = slot.map(|(_, place)| place.clone());
                let findings = judge(&facts, &args.thresholds);
                containers.push(Examined::new(facts, findings));
            }
            // Nothing can be said of any other either.
            Err(failure) if failure.exit == Exit::Unreachable => return Err(failure),
            Err(failure) => gone.push((id, failure)),
        }
    }
    if let (true, Some((_, failure))) = (containers.is_empty(), gone.first()) {
        return Err(failure.clone());
    }
    let diagnosis = Diagnosis::new(containers, gone.into_iter().map(|(id, _)| id).collect());
    output.show(&diagnosis)?;
    Ok(diagnosis.severity.exit())
}
