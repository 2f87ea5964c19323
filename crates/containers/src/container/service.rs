//! What a container of the service says about itself over HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bollard::models::ContainerInspectResponse;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::configuration::Configuration;
use crate::engine::http::get;

/// The image's title by which the service is known.
const TITLE: (&str, &str) = ("org.opencontainers.image.title", "plinth");

/// The service's own view.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// healthy, degraded, unhealthy, or `unreachable`.
    pub status: String,
    /// Dependencies that aren't healthy, and what is wrong with them.
    pub lost: BTreeMap<String, String>,
    /// Answers of the last minute with status 400 and above, in percent.
    pub error_percent: Option<f64>,
}

#[derive(Deserialize)]
struct Health {
    status: String,
    services: BTreeMap<String, String>,
}

/// Asks `/health` and `/metrics`; none where it isn't the service, or has no address.
pub async fn ask(inspect: &ContainerInspectResponse, configuration: &Configuration) -> Option<Service> {
    let labels = inspect.config.as_ref()?.labels.as_ref()?;
    if labels.get(TITLE.0).map(String::as_str) != Some(TITLE.1) {
        return None;
    }
    let set = |name: &str| configuration.environment.get(name).filter(|value| !value.is_empty());
    let port = set("MANAGEMENT_PORT").or(set("PORT")).map_or("3000", String::as_str);
    let address = SocketAddr::new(configuration.address()?, port.parse().ok()?);
    let (health, metrics) = tokio::join!(get(address, "/health"), get(address, "/metrics"));
    Some(match health {
        Ok(answer) => Service::read(&answer.body, &metrics.map(|answer| answer.body).unwrap_or_default()),
        Err(_) => Service { status: "unreachable".to_owned(), ..Service::default() },
    })
}

impl Service {
    /// Reads both answers.
    pub fn read(health: &str, metrics: &str) -> Self {
        let Ok(health) = serde_json::from_str::<Health>(health) else {
            return Self { status: "unreadable".to_owned(), ..Self::default() };
        };
        let lost = health.services.into_iter().filter(|(_, status)| status != "healthy" && status != "disabled");
        let rate = metrics.lines().find_map(|line| line.strip_prefix("http_error_rate "));
        Self {
            status: health.status,
            lost: lost.collect(),
            error_percent: rate.and_then(|value| value.trim().parse().ok()),
        }
    }
}
