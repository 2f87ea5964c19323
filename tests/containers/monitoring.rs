//! The profile `monitoring`: what can be started here is up, and a fault is seen in Alertmanager.

use std::time::Duration;

use devkit::wait_until;
use reqwest::Client;
use serde_json::Value;

use crate::support::{Project, docker};

/// Without Grafana, cAdvisor and the exporters of Postgres and Redis, whose images can't be had everywhere.
const STARTED: [&str; 5] = ["prometheus", "alertmanager", "jaeger", "node-exporter", "balancer"];
const UP: [&str; 6] = ["alertmanager", "applications", "haproxy", "jaeger", "node-exporter", "prometheus"];
/// The alert waits for a minute; the rest is for a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(300);

async fn ask(client: &Client, url: &str) -> Option<Value> {
    client.get(url).send().await.ok()?.json().await.ok()
}

#[tokio::test]
async fn what_is_watched_is_up_and_a_fault_reaches_alertmanager() {
    // Fails only when another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4318");
    let ports = [
        ("PROMETHEUS_PORT", "0"),
        ("ALERTMANAGER_PORT", "0"),
        ("JAEGER_PORT", "0"),
        ("COMPOSE_PROFILES", "monitoring"),
    ];
    let project = Project::new(&[&[endpoint], &ports[..]].concat()).await;
    project.compose(&[&["up", "--wait", "--no-build"], &STARTED[..]].concat()).await;
    let prometheus = format!("http://{}", project.compose(&["port", "prometheus", "9090"]).await);
    let alertmanager = format!("http://{}", project.compose(&["port", "alertmanager", "9093"]).await);

    let targets = async || {
        let answer = ask(&client, &format!("{prometheus}/api/v1/targets?state=active")).await?;
        let targets = answer["data"]["activeTargets"].as_array()?.clone();
        let mut up: Vec<_> = targets.iter().filter(|target| target["health"] == "up").collect();
        up.sort_by_key(|target| target["labels"]["job"].to_string());
        Some(up.iter().map(|target| target["labels"]["job"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>())
    };
    let all = async || {
        let up = targets().await.unwrap_or_default();
        let replicas = up.iter().filter(|job| *job == "applications").count();
        UP.iter().all(|job| up.iter().any(|found| found == job)) && replicas == 2
    };
    wait_until("every target that was started is up, both replicas too", LIMIT, all).await.unwrap();

    let balancer = project.address().await;
    let answer = client.get(format!("http://{balancer}/api/test")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let jaeger = project.compose(&["port", "jaeger", "16686"]).await;
    let services = format!("http://{jaeger}/api/services");
    let traced =
        async || ask(&client, &services).await.is_some_and(|answer| answer["data"].to_string().contains("plinth"));
    wait_until("Jaeger has spans of the service", LIMIT, traced).await.unwrap();

    // Killed by hand, they aren't started again.
    for replica in ["blue1", "blue2"] {
        docker(&["kill", "--signal=KILL", &project.container(replica).await]).await;
    }
    let fired = async || {
        let alerts = ask(&client, &format!("{alertmanager}/api/v2/alerts?filter=alertname%3DProxyNoServer")).await?;
        alerts[0].is_object().then(|| alerts[0].clone())
    };
    wait_until("Alertmanager has the alert", LIMIT, async || fired().await.is_some()).await.unwrap();
    let alert = fired().await.unwrap();
    assert_eq!(alert["receivers"][0]["name"], "page");
    assert!(alert["annotations"]["summary"].as_str().unwrap().contains("0 servers for service"), "{alert}");
    assert!(alert["annotations"]["runbook_url"].as_str().unwrap().ends_with("/proxy.md#proxynoserver"), "{alert}");
}
