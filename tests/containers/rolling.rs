//! Replicas are replaced and killed under load; the clients must not notice.

use std::time::Duration;

use devkit::load::Failure;
use devkit::{versions, wait_until};

use crate::support::{Container, LIMIT, Project, client, docker, mixed_load, wait_for_more};

/// What `/api/data` takes here: longer than a replica takes to leave the balancer.
const SLOW: (&str, &str) = ("DATA_COMPUTE_TIME", "2s");

/// A collector of traces in the project's network.
struct Jaeger(Container);

impl Jaeger {
    /// For the replicas.
    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4318");

    async fn start(project: &Project) -> Self {
        let network = format!("--network={}_monitoring", project.name);
        let publish = ["--network-alias=jaeger", "--publish=127.0.0.1::16686", versions::image("JAEGER").unwrap()];
        let jaeger = Self(Container::run(&[&[network.as_str()], &publish[..]].concat()).await);
        let url = jaeger.query("services").await;
        let up = async || client().get(&url).send().await.is_ok_and(|answer| answer.status() == 200);
        wait_until("Jaeger is up", LIMIT, up).await.unwrap();
        jaeger
    }

    async fn query(&self, path: &str) -> String {
        format!("http://{}/api/{path}", self.0.address(16686).await)
    }

    /// How many of these traces have no span of a request here.
    async fn missing(&self, mut traces: Vec<u128>) -> usize {
        let client = client();
        let url = self.query("traces").await;
        let found = async |trace: &u128| {
            let answer = client.get(format!("{url}/{trace:032x}")).send().await.unwrap();
            answer.text().await.unwrap().contains(r#""value":"server""#)
        };
        let arrived = async || {
            while let Some(trace) = traces.last()
                && found(trace).await
            {
                traces.pop();
            }
            traces.is_empty()
        };
        // Exports leave every few seconds, and when a replica stops; what isn't there by then is lost.
        let _ = wait_until("all spans are there", LIMIT, arrived).await;
        let mut lost = 0;
        for trace in &traces {
            lost += usize::from(!found(trace).await);
        }
        lost
    }
}

/// A new container in the place of the old one, as the documentation says.
async fn replace(project: &Project, replica: &str) {
    project.compose(&["up", "--detach", "--wait", "--no-deps", "--force-recreate", "--no-build", replica]).await;
}

/// Replaces both replicas so many times, under a load of at least `requests` requests.
async fn roll(rounds: u32, requests: u64) {
    let project = Project::up(&[SLOW, Jaeger::ENDPOINT]).await;
    let jaeger = Jaeger::start(&project).await;
    let load = mixed_load(&project, Duration::from_millis(20)).await;
    wait_for_more(&load, 500).await;

    for _ in 0..rounds {
        replace(&project, "blue1").await;
        replace(&project, "blue2").await;
    }
    wait_until("enough requests", LIMIT * 10, async || load.answered() >= requests).await.unwrap();
    let report = load.stop().await;
    println!("{rounds} rounds: {report}");

    assert_eq!(report.failures(), 0, "{report}\n{}", project.compose(&["logs", "--tail=50", "balancer"]).await);
    let sampled = report.traces.len();
    let lost = jaeger.missing(report.traces).await;
    println!("{lost} of {sampled} sampled requests have no trace");
    assert!(sampled as u64 >= requests / 20, "{sampled}");
    assert_eq!(lost, 0);
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_no_request_and_no_span() {
    roll(1, 2000).await;
}

#[tokio::test]
#[ignore = "five minutes: cargo dev nightly"]
async fn ten_rolling_restarts_lose_none_of_a_hundred_thousand_requests() {
    roll(10, 100_000).await;
}

#[tokio::test]
async fn killing_a_replica_costs_only_the_writes_that_it_was_working_on() {
    let project = Project::up(&[SLOW]).await;
    let load = mixed_load(&project, Duration::from_millis(10)).await;
    wait_for_more(&load, 1000).await;

    docker(&["kill", "--signal=KILL", &project.container("blue1").await]).await;
    wait_for_more(&load, 3000).await;
    replace(&project, "blue1").await;
    wait_for_more(&load, 1000).await;
    let report = load.stop().await;
    println!("killed: {report}");

    // On a connection that was kept, HAProxy says it by ending that; otherwise by 502.
    let expected =
        |(kind, method): &(Failure, &str)| *method == "POST" && matches!(kind, Failure::Closed | Failure::Status(502));
    assert!(report.failed.keys().all(expected), "{report}");
    // A client has one request under way at a time, and half of the 32 clients are with the other replica.
    assert!(report.failures() <= 16, "{report}");
}
