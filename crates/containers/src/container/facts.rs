//! What the engine tells about a container, reduced to what rules and people ask for.

use bollard::models::{ContainerInspectResponse, ContainerState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::configuration::Configuration;
use super::load::Load;
use super::sample::seconds;
use super::service::Service;

/// All that is known of one container at one moment. Secrets are already taken out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// The first 12 digits of its id.
    pub id: String,
    /// The image as it was named when the container was made.
    pub image: String,
    /// How it is now, and was before.
    pub state: State,
    /// How it was set up.
    pub configuration: Configuration,
    /// What it does; none where it doesn't run.
    pub load: Option<Load>,
    /// What it says about itself, where it is one of the service.
    pub service: Option<Service>,
    /// Its slot in the balancer, where it has one.
    pub slot: Option<Place>,
}

/// A slot of the balancer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// Its name there.
    pub name: String,
    /// 0 gets no requests.
    pub weight: u32,
    /// The balancer's own checks fail.
    pub down: bool,
}

/// A container's state and history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// created, running, paused, restarting, exited or dead.
    pub status: String,
    /// What its last process ended with.
    pub exit_code: i64,
    /// The kernel killed one of its processes for memory.
    pub oom_killed: bool,
    /// Such kills in the engine's memory of the last day.
    pub oom_events: u64,
    /// Signals sent to it through the engine in that time, oldest first.
    pub signals: Vec<String>,
    /// Why the engine couldn't start it.
    pub error: String,
    /// How often the engine started it again by itself.
    pub restarts: i64,
    /// Seconds since its last start, by the engine's clock, while it runs.
    pub uptime: Option<f64>,
    /// healthy, unhealthy, starting; none without a health check.
    pub health: Option<String>,
    /// Health checks that failed in a row.
    pub failing_streak: i64,
    /// The last health checks, oldest first.
    pub probes: Vec<Probe>,
}

/// One health check's outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// When it began.
    pub at: String,
    /// 0 is healthy.
    pub exit_code: i64,
    /// What it wrote, shortened.
    pub output: String,
}

impl Facts {
    /// Reads the engine's answer; `now` in seconds since 1970.
    pub fn read(inspect: &ContainerInspectResponse, now: f64) -> Self {
        let id = inspect.id.clone().unwrap_or_default();
        let config = inspect.config.clone().unwrap_or_default();
        let state = inspect.state.clone().unwrap_or_default();
        Self {
            name: inspect.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned(),
            id: id.chars().take(12).collect(),
            image: config.image.unwrap_or_default(),
            state: State { restarts: inspect.restart_count.unwrap_or(0), ..State::read(&state, now) },
            configuration: Configuration::read(inspect),
            load: None,
            service: None,
            slot: None,
        }
    }
}

impl State {
    fn read(state: &ContainerState, now: f64) -> Self {
        let running = state.running == Some(true);
        let started = state.started_at.as_deref().and_then(seconds);
        let health = state.health.clone().unwrap_or_default();
        let status = health.status.map(|status| status.to_string());
        let probes = health.log.unwrap_or_default().into_iter().map(|probe| Probe {
            at: probe.start.unwrap_or_default(),
            exit_code: probe.exit_code.unwrap_or(0),
            output: probe.output.unwrap_or_default().trim().to_owned(),
        });
        Self {
            status: state.status.map(|status| status.to_string()).unwrap_or_default(),
            exit_code: state.exit_code.unwrap_or(0),
            oom_killed: state.oom_killed == Some(true),
            error: state.error.clone().unwrap_or_default(),
            uptime: started.filter(|_| running).map(|started| (now - started).max(0.0)),
            health: status.filter(|status| !status.is_empty() && status != "none"),
            failing_streak: health.failing_streak.unwrap_or(0),
            probes: probes.collect(),
            ..Self::default()
        }
    }
}

/// The first `limit` characters, with a sign that there were more.
pub fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
