//! `ops status`: what runs where, with which weight.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::Global;
use crate::deploy::parts::{Admin, Seen, Slot, color};
use crate::engine::target::{LOOK, connect};
use crate::exit::{Exit, Result};
use crate::output::table::table;
use crate::output::{Document, Output};
use crate::state::State;
use crate::state::journal::Deploy;

/// All slots, and the last deploy.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    slots: Vec<Place>,
    /// None: nothing was deployed by this state folder yet.
    deploy: Option<Deploy>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Place {
    slot: String,
    color: String,
    container: Option<String>,
    version: Option<String>,
    state: Admin,
    /// The balancer's check passes.
    up: bool,
    weight: u32,
    /// Percent of new requests.
    share: f64,
    sessions: u64,
    requests: u64,
    errors: u64,
    /// Mean of the last answers.
    milliseconds: u128,
    restarts: Option<i64>,
}

impl Document for Status {
    const KIND: &'static str = "status";
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "SLOT",
            "VERSION",
            "STATE",
            "UP",
            "WEIGHT",
            "SHARE",
            "SESSIONS",
            "REQUESTS",
            "ERRORS",
            "MEAN",
            "CONTAINER",
        ];
        let rows: Vec<_> = self
            .slots
            .iter()
            .map(|one| {
                let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                [
                    one.slot.clone(),
                    dash(&one.version),
                    format!("{:?}", one.state).to_lowercase(),
                    if one.up { "yes" } else { "no" }.to_owned(),
                    one.weight.to_string(),
                    format!("{:.1}%", one.share),
                    one.sessions.to_string(),
                    one.requests.to_string(),
                    one.errors.to_string(),
                    format!("{}ms", one.milliseconds),
                    dash(&one.container),
                ]
            })
            .collect();
        f.write_str(&table(headings, &rows))?;
        match &self.deploy {
            None => writeln!(f, "Nothing has been deployed from here yet."),
            Some(deploy) => {
                let Deploy { id, version, phase, since, reason, .. } = deploy;
                let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                writeln!(f, "Deploy {id} of version {version}: {} since {since}{reason}", phase.name())
            }
        }
    }
}

/// Asks and shows; needs no lock.
pub async fn run(global: &Global, output: &Output) -> Result<Exit> {
    let (engine, balancer) = connect(global, LOOK).await?;
    let slots = balancer.slots().await?;
    let seen = engine.containers(&slots).await?;
    let deploy = State::new(&global.state_dir).deploy()?;
    let total: u32 = slots.iter().filter(|slot| slot.takes_traffic()).map(|slot| slot.weight).sum();
    let slots = slots.iter().map(|slot| place(slot, &seen, total)).collect();
    output.show(&Status { slots, deploy })?;
    Ok(Exit::Done)
}

fn place(slot: &Slot, seen: &[Seen], total: u32) -> Place {
    // A stopped container may wait here for a rollback.
    let here = || seen.iter().filter(|one| one.slot == slot.name);
    let container = here().find(|one| one.running).or_else(|| here().next());
    let share = if slot.takes_traffic() { 100.0 * f64::from(slot.weight) / f64::from(total.max(1)) } else { 0.0 };
    Place {
        slot: slot.name.clone(),
        color: color(&slot.name).to_owned(),
        container: container.map(|one| one.name.clone()),
        version: container.map(|one| one.version.clone()),
        state: slot.admin,
        up: slot.up,
        weight: slot.weight,
        share,
        sessions: slot.sessions,
        requests: slot.counters.requests,
        errors: slot.counters.errors,
        milliseconds: slot.counters.mean.as_millis(),
        restarts: container.map(|one| one.restarts),
    }
}
