//! The journal: what the last deploy intends, written before it is done.

use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{State, now, replace};
use crate::deploy::parts::Replica;
use crate::exit::{Exit, OrExit, Result};

/// How far a deploy is, in order. From `Promoted` on an interrupted one is finished, before that it is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Slots are chosen.
    Planned,
    /// Nothing else is in the slots.
    Cleared,
    /// Containers exist.
    Created,
    /// They run.
    Started,
    /// They say that they are ready.
    Ready,
    /// They answered the smoke requests.
    Smoked,
    /// The balancer checks them, at weight 0.
    Admitted,
    /// They take their share of a canary's step.
    Step,
    /// They take everything.
    Promoted,
    /// They are watched, the old ones kept running.
    Baking,
    /// The old ones finish what they have.
    Draining,
    /// Finished.
    Done,
    /// The old ones get everything back.
    RollingBack,
    /// They have.
    RolledBack,
    /// It couldn't be undone.
    NeedsOperator,
}

impl Phase {
    /// Nothing is under way.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack)
    }

    /// As in JSON.
    pub fn name(self) -> String {
        format!("{self:?}").chars().fold(String::new(), |mut name, c| {
            if c.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
            name
        })
    }
}

/// What kind of deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// All at once, when all are ready.
    BlueGreen,
    /// In steps, each judged against a fresh baseline.
    Canary,
    /// Back to containers that are still here.
    #[value(skip)]
    Rollback,
}

/// What an interrupted deploy needs to be finished or undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// How long old replicas may take to finish requests before their sessions are cut.
    pub drain: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How long old replicas run on without traffic.
    pub keep_warm: Duration,
}

/// One deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deploy {
    pub id: String,
    pub strategy: Strategy,
    pub image: String,
    pub version: String,
    pub started: String,
    pub phase: Phase,
    /// When the phase began.
    pub since: String,
    /// Percent of the traffic that the new replicas are meant to have.
    pub share: u32,
    pub old: Vec<Replica>,
    pub new: Vec<Replica>,
    /// A fresh replica of the old version that a canary is compared with.
    pub baseline: Option<Replica>,
    pub timing: Timing,
    /// Migrations of the database that were applied for it.
    #[serde(default)]
    pub migrations: Vec<String>,
    /// How it ended, and why.
    pub outcome: Option<String>,
    pub reason: Option<String>,
    /// Replicas without traffic that a rollback can go back to: those before this deploy once it is done, and until its
    /// slots are cleared those that the deploy before had kept.
    #[serde(default)]
    pub kept: Vec<Replica>,
    /// Until then, in seconds since 1970, they run on.
    pub warm_until: Option<u64>,
}

impl Deploy {
    /// One of which nothing is done yet, and which has no replicas yet.
    pub fn planned(id: String, strategy: Strategy, image: String, version: String, timing: Timing) -> Self {
        Self {
            id,
            strategy,
            image,
            version,
            started: now(),
            phase: Phase::Planned,
            since: now(),
            share: 0,
            old: Vec::new(),
            new: Vec::new(),
            baseline: None,
            timing,
            migrations: Vec::new(),
            outcome: None,
            reason: None,
            kept: Vec::new(),
            warm_until: None,
        }
    }

    /// Every replica but the old ones.
    pub fn made(&self) -> impl Iterator<Item = &Replica> {
        self.new.iter().chain(&self.baseline)
    }

    /// The replicas that have the traffic once nothing is under way.
    pub fn active(&self) -> &[Replica] {
        if self.phase == Phase::Done { &self.new } else { &self.old }
    }
}

impl State {
    /// The last deploy, if there was any.
    pub fn deploy(&self) -> Result<Option<Deploy>> {
        let path = self.file("deploy.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .or_exit(Exit::OperatorNeeded, format!("{} is damaged", path.display()))
                .map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).or_exit(Exit::Precondition, format!("can't read {}", path.display())),
        }
    }

    /// Writes down that the deploy is in its phase from now on.
    pub fn save(&self, deploy: &mut Deploy) -> Result<()> {
        deploy.since = now();
        let path = self.file("deploy.json");
        let doing = format!("can't write {}", path.display());
        let bytes = serde_json::to_vec_pretty(deploy).or_exit(Exit::OperatorNeeded, &doing)?;
        replace(&path, &bytes).or_exit(Exit::OperatorNeeded, doing)
    }
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    since_1970().as_secs()
}

/// Now; a clock before 1970 counts as 1970.
pub fn since_1970() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a point in time that outlives the process, not a duration")]
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}
