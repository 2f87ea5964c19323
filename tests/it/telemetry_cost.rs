//! What telemetry costs: figures for `docs/telemetry.md`, side by side in one run.

use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::Duration;

use devkit::load::{Ask, Load, Traffic};
use devkit::{Fault, FaultProxy};

use crate::support::{Collector, LIMIT, TestApp};

const REQUESTS: u64 = 60_000;
const ROUNDS: usize = 3;

/// A service on one thread, and what it used for a round of cached reads.
struct Side {
    name: &'static str,
    app: TestApp,
    /// Microseconds of processor time for a request, and of a request in the service, by round.
    rounds: Vec<(f64, f64)>,
    slowest: Duration,
}

impl Side {
    async fn start(name: &'static str, first: Option<&Self>, env: &[(&str, &str)]) -> Self {
        let builder = env.iter().fold(TestApp::builder().env("WORKERS", 1), |all, (name, value)| all.env(name, value));
        let builder = if let Some(first) = first { builder.beside(&first.app) } else { builder };
        Self { name, app: builder.start().await, rounds: Vec::new(), slowest: Duration::ZERO }
    }

    async fn used(&self) -> (f64, f64) {
        let seconds = self.app.metric("process_cpu_seconds_total").await.unwrap();
        (seconds, self.app.sum("http_request_duration_seconds_sum", &["/api/users/{id}"]).await)
    }

    async fn round(&mut self) {
        let to = self.app.url.trim_start_matches("http://").to_socket_addrs().unwrap().next().unwrap();
        let ask = |_| Ask { method: "GET", path: "/api/users/1".to_owned(), ..Ask::default() };
        let traffic = Traffic {
            to,
            kept: 16,
            fresh: 0,
            pause: Duration::ZERO,
            limit: LIMIT,
            count: REQUESTS,
            sampled: 0,
            asks: Arc::new(ask),
        };
        let before = self.used().await;
        let report = Load::start(&traffic).finished().await;
        let after = self.used().await;
        assert_eq!(report.failures(), 0, "{}: {report}", self.name);
        self.slowest = self.slowest.max(report.slowest);
        #[expect(clippy::cast_precision_loss, reason = "60,000")]
        let micros = 1e6 / REQUESTS as f64;
        self.rounds.push(((after.0 - before.0) * micros, (after.1 - before.1) * micros));
    }
}

#[tokio::test]
#[ignore = "three minutes: cargo dev nightly"]
async fn what_telemetry_costs_is_measured_with_and_without_a_collector() {
    let (live, broken) = (Collector::answering(200), Collector::answering(503));
    let mut faulty = Vec::new();
    for fault in [Fault::Refuse, Fault::BlackHole, Fault::Latency(Duration::from_secs(3))] {
        let proxy = FaultProxy::start(live.address).await.unwrap();
        proxy.set(fault);
        faulty.push((format!("http://{}", proxy.addr()), proxy));
    }
    let [refusing, silent, slow] = [0, 1, 2].map(|at| ("OTEL_EXPORTER_OTLP_ENDPOINT", faulty[at].0.as_str()));
    // Nothing but that it listens.
    let quiet = ("LOG_LEVEL", "off,plinth::server=info,plinth::server::observe=off");
    let tenth = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.1")];
    let all = ("OTEL_TRACES_SAMPLER", "always_on");
    let live = ("OTEL_EXPORTER_OTLP_ENDPOINT", live.endpoint.as_str());
    let broken = ("OTEL_EXPORTER_OTLP_ENDPOINT", broken.endpoint.as_str());

    let first = Side::start("neither log nor traces", None, &[quiet]).await;
    let id = first.app.create_user("one", "one@example.com").await;
    assert_eq!(id, 1);
    let mut sides = Vec::new();
    for (name, env) in [
        ("log", vec![]),
        ("log, 10 % of traces", vec![tenth[0], tenth[1], live]),
        ("log, all traces", vec![all, live]),
        ("the same, collector refuses", vec![all, refusing]),
        ("the same, collector is a black hole", vec![all, silent]),
        ("the same, collector takes 3 s", vec![all, slow]),
        ("the same, collector answers 503", vec![all, broken]),
    ] {
        sides.push(Side::start(name, Some(&first), &env).await);
    }
    sides.insert(0, first);
    for _ in 0..ROUNDS {
        for side in &mut sides {
            side.round().await;
        }
    }

    println!("| | CPU µs a request | µs in the service | slowest | resident MiB | spans exported, failed, dropped |");
    println!("|---|---|---|---|---|---|");
    let (mut memory, mut made) = (Vec::new(), Vec::new());
    for side in &sides {
        let resident = side.app.metric("process_resident_memory_bytes").await.unwrap() / f64::from(1 << 20);
        let mut spans = Vec::new();
        for outcome in ["exported", "failed", "dropped"] {
            let series = format!("telemetry_spans_total{{outcome=\"{outcome}\"}}");
            spans.push(side.app.metric(&series).await.unwrap_or_default());
        }
        made.push(spans.iter().sum::<f64>());
        let spans: Vec<String> = spans.iter().map(f64::to_string).collect();
        let range = |pick: fn(&(f64, f64)) -> f64| {
            let all = side.rounds.iter().map(pick);
            let (least, most) = all.fold((f64::MAX, 0.0_f64), |(least, most), one| (least.min(one), most.max(one)));
            format!("{least:.1}–{most:.1}")
        };
        let (cpu, inside) = (range(|round| round.0), range(|round| round.1));
        println!("| {} | {cpu} | {inside} | {:.0?} | {resident:.0} | {} |", side.name, side.slowest, spans.join(", "));
        memory.push(resident);
    }
    assert!(made[2..].iter().all(|spans| *spans > 0.0) && made[..2] == [0.0, 0.0], "{made:?}");
    // What waits for a collector is bounded by the queue, not by the outage.
    assert!(memory[4..].iter().all(|faulty| *faulty < memory[3] + 32.0), "{memory:?}");
}
