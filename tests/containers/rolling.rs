//! Replicas are replaced and killed under load; the clients must not notice.

use std::sync::Arc;
use std::time::Duration;

use devkit::load::{Ask, Failure, Load, Traffic};
use devkit::wait_until;
use serde_json::json;

use crate::support::{Container, LIMIT, Project, docker};

/// What `/api/data` takes here: longer than it takes a replica to leave the balancer.
const SLOW: &str = "2s";

/// A project with a collector of traces that its replicas export to.
struct World {
    project: Project,
    jaeger: Container,
}

impl World {
    async fn up(settings: &[(&str, &str)]) -> Self {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4318");
        let project = Project::up(&[&[("DATA_COMPUTE_TIME", SLOW), endpoint], settings].concat()).await;
        let network = format!("--network={}_monitoring", project.name);
        let publish = ["--network-alias=jaeger", "--publish=127.0.0.1::16686", "jaegertracing/jaeger:2.13.0"];
        let jaeger = Container::run(&[&[network.as_str()], &publish[..]].concat()).await;
        let world = Self { project, jaeger };
        let url = world.query("services").await;
        let up = async || reqwest::get(&url).await.is_ok_and(|answer| answer.status() == 200);
        wait_until("Jaeger is up", LIMIT, up).await.unwrap();
        world
    }

    async fn query(&self, path: &str) -> String {
        format!("http://{}/api/{path}", self.jaeger.address(16686).await)
    }

    /// Reads and writes over kept and new connections, slow bodies and slow answers among them.
    async fn load(&self, pause: Duration) -> Load {
        let token = self.project.token().await;
        let run: u32 = rand::random();
        let asks = move |number: u64| match number % 100 {
            0..10 => Ask {
                method: "POST",
                path: "/api/users".to_owned(),
                body: json!({"name": "Ada", "email": format!("{run}-{number}@example.com")}).to_string(),
                slow_body: if number % 100 < 2 { Duration::from_millis(700) } else { Duration::ZERO },
                token: Some(token.clone()),
            },
            // Each key once, so that it is computed.
            10 => get(format!("/api/data/{run}-{number}")),
            11..60 => get("/api/test".to_owned()),
            _ => get("/api/users?limit=3".to_owned()),
        };
        Load::start(&Traffic {
            to: self.project.address().await,
            kept: 24,
            fresh: 8,
            pause,
            limit: Duration::from_secs(20),
            count: u64::MAX,
            sampled: 10,
            asks: Arc::new(asks),
        })
    }

    /// A new container in the place of the old one, as the documentation says.
    async fn replace(&self, replica: &str) {
        let up = ["up", "--detach", "--wait", "--no-deps", "--force-recreate", "--no-build"];
        self.project.compose(&[&up, &[replica][..]].concat()).await;
    }

    /// How many of these traces have no span of a request in the collector.
    async fn missing(&self, mut traces: Vec<u128>) -> usize {
        let client = reqwest::Client::new();
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
        let _ = wait_until("all spans are there", Duration::from_secs(30), arrived).await;
        let mut lost = 0;
        for trace in &traces {
            lost += usize::from(!found(trace).await);
        }
        lost
    }
}

fn get(path: String) -> Ask {
    Ask { method: "GET", path, ..Ask::default() }
}

async fn wait_for_more(load: &Load, more: u64) {
    let goal = load.answered() + more;
    wait_until("the load is answered", LIMIT, async || load.answered() >= goal).await.unwrap();
}

/// Replaces both replicas so many times, under a load of at least `requests` requests.
async fn roll(rounds: u32, requests: u64) {
    let world = World::up(&[]).await;
    let load = world.load(Duration::from_millis(20)).await;
    wait_for_more(&load, 500).await;

    for _ in 0..rounds {
        world.replace("blue1").await;
        world.replace("blue2").await;
    }
    wait_until("enough requests", LIMIT * 10, async || load.answered() >= requests).await.unwrap();
    let report = load.stop().await;
    println!("{rounds} rounds: {report}");

    assert_eq!(report.failures(), 0, "{report}");
    let sampled = report.traces.len();
    let lost = world.missing(report.traces).await;
    println!("{lost} of {sampled} sampled requests have no trace");
    assert!(sampled as u64 >= requests / 20, "{sampled}");
    assert_eq!(lost, 0);
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_no_request_and_no_span() {
    roll(1, 2000).await;
}

#[tokio::test]
#[ignore = "ten minutes: cargo dev nightly"]
async fn ten_rolling_restarts_lose_none_of_a_hundred_thousand_requests() {
    roll(10, 100_000).await;
}

#[tokio::test]
async fn killing_a_replica_costs_only_the_writes_that_it_was_working_on() {
    let world = World::up(&[]).await;
    let load = world.load(Duration::from_millis(10)).await;
    wait_for_more(&load, 1000).await;

    docker(&["kill", "--signal=KILL", &world.project.container("blue1").await]).await;
    wait_for_more(&load, 3000).await;
    world.replace("blue1").await;
    wait_for_more(&load, 1000).await;
    let report = load.stop().await;
    println!("killed: {report}");

    let of_writes = |(kind, method): &(Failure, &str)| *method == "POST" && matches!(kind, Failure::Status(502));
    assert!(report.failed.keys().all(of_writes), "{report}");
    // A client has one request under way at a time, and half of the clients are with the other replica.
    assert!(report.failures() <= 8, "{report}");
}
