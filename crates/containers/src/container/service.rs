//! What a container of the service says about itself over HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

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
    /// Answers while it was watched, without those to probes and scrapes.
    pub answers: u64,
    /// Those with status 500 and above.
    pub server_errors: u64,
}

#[derive(Deserialize)]
struct Health {
    status: String,
    services: BTreeMap<String, String>,
}

/// Asks `/health`, and `/metrics` twice; none where it isn't the service, or has no address.
pub async fn ask(
    inspect: &ContainerInspectResponse,
    configuration: &Configuration,
    window: Duration,
) -> Option<Service> {
    let labels = inspect.config.as_ref()?.labels.as_ref()?;
    if labels.get(TITLE.0).map(String::as_str) != Some(TITLE.1) {
        return None;
    }
    let set = |name: &str| configuration.environment.get(name).filter(|value| !value.is_empty());
    let port = set("MANAGEMENT_PORT").or(set("PORT")).map_or("3000", String::as_str);
    let address = SocketAddr::new(configuration.addresses().next()?, port.parse().ok()?);
    let (health, first) = tokio::join!(get(address, "/health"), get(address, "/metrics"));
    let Ok(health) = health else {
        return Some(Service { status: "unreachable".to_owned(), ..Service::default() });
    };
    tokio::time::sleep(window).await;
    let last = get(address, "/metrics").await;
    let pages = first.ok().zip(last.ok()).map(|(first, last)| (first.body, last.body)).unwrap_or_default();
    Some(Service::read(&health.body, (&pages.0, &pages.1)))
}

impl Service {
    /// Reads the health, and what the metrics counted between their two pages.
    pub fn read(health: &str, (first, last): (&str, &str)) -> Self {
        let Ok(health) = serde_json::from_str::<Health>(health) else {
            return Self { status: "unreadable".to_owned(), ..Self::default() };
        };
        let lost = health.services.into_iter().filter(|(_, status)| status != "healthy" && status != "disabled");
        let ((answers_before, errors_before), (answers, server_errors)) = (counted(first), counted(last));
        Self {
            status: health.status,
            lost: lost.collect(),
            answers: answers.saturating_sub(answers_before),
            server_errors: server_errors.saturating_sub(errors_before),
        }
    }
}

/// Answers since the service's start, and those of them with status 500 and above.
fn counted(metrics: &str) -> (u64, u64) {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("http_requests_total{")?.rsplit_once("} "));
    let own = |labels: &str| labels.contains("=\"/health") || labels.contains("=\"/metrics\"");
    let asked = lines.filter(|(labels, _)| !own(labels));
    asked.fold((0, 0), |(answers, errors), (labels, value)| {
        let count = value.trim().parse().unwrap_or(0);
        let failed = labels.contains("http_response_status_code=\"5");
        (answers + count, errors + if failed { count } else { 0 })
    })
}
