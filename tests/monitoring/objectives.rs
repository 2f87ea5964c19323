//! `docker/prometheus/objectives.yml`.

use serde::Deserialize;

pub const FILE: &str = "docker/prometheus/objectives.yml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objectives {
    pub runbooks: String,
    pub dashboards: String,
    pub availability: f64,
    pub latency: f64,
    pub seconds: f64,
    pub windows: Vec<Window>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub long: String,
    pub short: String,
    pub factor: f64,
    #[serde(rename = "for")]
    pub wait: String,
    pub severity: String,
}

impl Objectives {
    pub fn read() -> Self {
        crate::files::parse(FILE)
    }
}

impl Window {
    /// The share of bad requests above which the window alerts.
    pub fn limit(&self, objective: f64) -> f64 {
        // Without the noise of binary fractions: 0.0144, not 0.014400000000000013.
        (self.factor * (1.0 - objective) * 1e6).round() / 1e6
    }

    /// With fewer requests, one bad one would be above the limit; then nothing is said.
    pub fn fewest(&self, objective: f64) -> f64 {
        (1.0 / self.limit(objective)).ceil()
    }
}
