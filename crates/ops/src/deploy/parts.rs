//! What a deploy acts on, as two traits, so that every interleaving of failures can be tried on fakes.

use crate::engine::http::Answer;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit::Result;

/// One place behind the balancer. Its name is its colour and a number. Its address never changes, unless it has a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    /// 0.0.0.0 while its host has no address for it.
    pub address: SocketAddr,
    /// The name in DNS from which the balancer takes the address.
    pub host: Option<String>,
    pub admin: Admin,
    /// The balancer's own check passed, and passed since the slot was last opened.
    pub up: bool,
    /// It failed so often that the balancer took it out.
    pub down: bool,
    pub weight: u32,
    pub sessions: u64,
    pub counters: Counters,
}

impl Slot {
    /// New requests can come here.
    pub fn takes_traffic(&self) -> bool {
        self.admin == Admin::Ready && self.weight > 0 && !self.address.ip().is_unspecified()
    }
}

/// The colour in a slot's name.
pub fn color(slot: &str) -> &str {
    slot.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// What the balancer was told about a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Admin {
    /// Takes requests by its weight.
    Ready,
    /// Checked, but takes no new requests.
    Drain,
    /// Closed, not even checked.
    Maint,
}

/// What the balancer has counted since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests: u64,
    /// Answers of 5xx, broken and refused connections.
    pub errors: u64,
    /// Mean of the last answers' times.
    pub mean: Duration,
}

/// One change to a slot; several are made in their order without anything between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Weight(String, u32),
    Ready(String),
    Drain(String),
    Maint(String),
    /// Ends sessions that outlived the drain.
    Cut(String),
}

impl Change {
    /// The slots are as this change makes them. Cut sessions leave no trace.
    pub fn holds(&self, slots: &[Slot]) -> bool {
        let is = |name: &String, as_wanted: &dyn Fn(&Slot) -> bool| {
            slots.iter().any(|slot| slot.name == *name && as_wanted(slot))
        };
        match self {
            Self::Weight(name, weight) => is(name, &|slot| slot.weight == *weight),
            Self::Ready(name) => is(name, &|slot| slot.admin == Admin::Ready),
            Self::Drain(name) => is(name, &|slot| slot.admin == Admin::Drain),
            Self::Maint(name) => is(name, &|slot| slot.admin == Admin::Maint),
            Self::Cut(_) => true,
        }
    }
}

/// What distributes the requests.
#[async_trait]
pub trait Balancer: Send + Sync {
    /// All slots, as they are now.
    async fn slots(&self) -> Result<Vec<Slot>>;
    /// Makes the changes and writes the state down, so that a reload keeps it.
    async fn apply(&self, changes: &[Change]) -> Result<()>;
}

/// A container that is, was or will be in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replica {
    pub slot: String,
    pub address: SocketAddr,
    pub container: String,
    pub image: String,
    /// The image's own id: a tag may be another image's by now.
    #[serde(default)]
    pub image_id: String,
    pub version: String,
}

/// A container as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    pub name: String,
    /// The slot whose address it has, or gets when it is started.
    pub slot: String,
    /// The deploy that made it.
    pub deploy: Option<String>,
    pub image: String,
    pub image_id: String,
    pub version: String,
    pub running: bool,
    pub restarts: i64,
    pub out_of_memory: bool,
    pub exit_code: i64,
    /// Why it could not be started.
    pub error: String,
}

impl Seen {
    /// What became of it since `before`; what it suffered in a former life doesn't count.
    #[must_use]
    pub fn since(self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        // The engine counts anew when somebody starts it.
        let restarts = if before.running { before.restarts } else { 0 };
        let out_of_memory = self.out_of_memory && !before.out_of_memory;
        Self { restarts: self.restarts - restarts, out_of_memory, ..self }
    }

    /// Why this container can't serve, if that is certain.
    pub fn broken(&self) -> Option<String> {
        let name = &self.name;
        let exit = match self.exit_code {
            126 => "126 (can't be executed: wrong architecture or no permission)",
            127 => "127 (program or loader not found)",
            101 => "101 (panic)",
            134 => "134 (abort)",
            137 => "137 (killed)",
            139 => "139 (segmentation fault)",
            2 => "2 (usage or configuration)",
            _ => "",
        };
        let exit = if exit.is_empty() { self.exit_code.to_string() } else { exit.to_owned() };
        match self {
            Self { out_of_memory: true, .. } => Some(format!("{name} ran out of memory (OOM-killed, exit code 137)")),
            Self { restarts: 1.., .. } => Some(format!("{name} restarted; it had ended with exit code {exit}")),
            Self { running: false, error, .. } if !error.is_empty() => Some(format!("{name} can't start: {error}")),
            Self { running: false, .. } => Some(format!("{name} ended with exit code {exit}")),
            _ => None,
        }
    }
}

/// An image, looked at before anything is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    pub version: String,
    pub architecture: String,
}

/// How new containers are made: like one that runs, with another image.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub deploy: String,
    /// The container whose settings are taken over.
    pub like: String,
    /// NAME=VALUE that differ; never written down.
    pub environment: Vec<String>,
}

/// The container in which a deploy runs a command of the image.
pub fn once(recipe: &Recipe) -> String {
    format!("ops-once-{}", recipe.deploy)
}

/// What a command in a container of its own came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub code: i64,
    pub output: String,
}

/// What runs containers, and a way to ask them.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Pulls the image unless it is here; fails when this machine can't run it.
    async fn image(&self, name: &str) -> Result<Image>;
    /// All containers that have the address of one of these slots, also stopped ones.
    async fn containers(&self, slots: &[Slot]) -> Result<Vec<Seen>>;
    /// Makes a container for the slot unless it is there.
    async fn create(&self, replica: &Replica, recipe: &Recipe) -> Result<()>;
    async fn start(&self, container: &str) -> Result<()>;
    /// SIGTERM, and SIGKILL after `grace`; fine when it is gone.
    async fn stop(&self, container: &str, grace: Duration) -> Result<()>;
    /// Fine when it is gone.
    async fn remove(&self, container: &str) -> Result<()>;
    /// The last lines that it wrote, without secrets.
    async fn log(&self, container: &str) -> Result<String>;
    /// Runs a command of the image in a container like another one, and removes it.
    async fn once(&self, image: &str, recipe: &Recipe, command: &[&str]) -> Result<Ended>;
    /// GET from a replica, past the balancer; the error says why there was no answer.
    async fn get(&self, replica: &Replica, path: &str) -> std::result::Result<Answer, String>;
}
