//! What a real process emits, held against the catalog: nothing undeclared, nothing missing, kinds, helps and labels right.

use std::collections::BTreeSet;

use devkit::wait_until;
use reqwest::Method;
use serde_json::json;
use telemetry::catalog::{Kind, Metric};

use crate::support::exposition::{self, Family};
use crate::support::{Collector, LIMIT, TestApp};

#[path = "../../src/catalog.rs"]
mod catalog;

use catalog::CATALOG;

/// Families that only trouble makes, which other tests make.
const TROUBLE: [&str; 7] = [
    "cache_bus_gap",
    "cache_codec_errors",
    "cache_errors",
    "cache_consistency_probe",
    "cache_refresh",
    "cache_stale_served",
    "cache_unverified_served",
];

/// Reads, writes and mistakes of every kind, also of two at once.
async fn session(app: &TestApp) {
    let id = app.create_user("Ada", "ada@example.com").await;
    let path = format!("/api/users/{id}");
    for _ in 0..3 {
        assert_eq!(app.get(&path).await.status, 200);
    }
    let user = json!({"name": "Ada", "email": "ada@example.org"});
    assert_eq!(app.write(Method::PUT, &path, &user).await.status, 200);
    assert_eq!(app.get("/api/users").await.status, 200);
    let (one, other) = tokio::join!(app.get("/api/data/slow"), app.get("/api/data/slow"));
    assert_eq!((one.status.as_u16(), other.status.as_u16()), (200, 200));
    assert_eq!(app.get("/api/test").await.status, 200);
    app.get("/api/cache/a").await.problem(404);
    for path in ["/api/users/99", "/nothing", "/api/users/x"] {
        assert!(app.get(path).await.status.is_client_error());
    }
    assert_eq!(app.delete(&path).await.status, 204);
    app.get(&format!("{path}?")).await.problem(404);
}

async fn app() -> (TestApp, Collector) {
    let collector = Collector::http();
    let app = TestApp::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("LOG_LEVEL", "info,plinth=debug,tiered_cache=debug")
        .env("REDIS_TIMEOUT", "10s")
        // Long enough for a second request to find the first one under way.
        .env("DATA_COMPUTE_TIME", "500ms")
        .start()
        .await;
    (app, collector)
}

#[tokio::test]
async fn a_scrape_holds_the_declared_families_and_no_others() {
    let (app, _collector) = app().await;
    session(&app).await;
    let exported = async || app.metric("telemetry_spans_total{outcome=\"exported\"}").await.is_some();
    wait_until("spans were exported", LIMIT, exported).await.unwrap();
    let own = async || app.metric("cache_invalidate_visible_seconds_count").await.is_some_and(|count| count > 0.0);
    wait_until("an invalidation came back", LIMIT, own).await.unwrap();
    for (accept, openmetrics) in [("application/openmetrics-text", true), ("text/plain", false)] {
        let scrape = app.send(app.request(Method::GET, "/metrics").header("accept", accept)).await;
        let seen: BTreeSet<_> =
            exposition::families(&scrape.text, openmetrics).iter().map(|family| declared(family).name).collect();
        let known = |metric: &&Metric| seen.contains(metric.name) || TROUBLE.contains(&metric.name);
        let missing: Vec<_> = CATALOG.metrics.iter().filter(|metric| !known(metric)).collect();
        assert!(missing.is_empty(), "declared, but not in a scrape of {accept}: {missing:?}");
    }
}

/// The family as it is declared, which it has to be.
fn declared(family: &Family) -> &'static Metric {
    let name = &family.name;
    let metric = CATALOG.metric(name).unwrap_or_else(|| panic!("{name} isn't declared"));
    assert_eq!(family.help.trim_end_matches('.'), metric.help.trim_end_matches('.'), "{name}");
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    assert_eq!(family.kind, kind, "{name}");
    for sample in &family.samples {
        let labels: BTreeSet<_> = sample.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        assert_eq!(labels, metric.labels.iter().copied().collect(), "{name}");
    }
    metric
}

#[tokio::test]
async fn families_have_no_more_series_than_declared() {
    let (app, _collector) = app().await;
    session(&app).await;
    let text = app.get("/metrics").await.text;
    for metric in CATALOG.metrics {
        let sample = match metric.kind {
            Kind::Counter => format!("{}_total", metric.name),
            Kind::Gauge => metric.name.to_owned(),
            Kind::Histogram => format!("{}_count", metric.name),
        };
        let of_family = |line: &&str| line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let series = text.lines().filter(of_family).count();
        assert!(series <= metric.most as usize, "{series} series of {sample}, {} declared", metric.most);
    }
}

#[tokio::test]
async fn spans_and_their_events_are_declared_with_all_their_attributes() {
    let (mut app, collector) = app().await;
    session(&app).await;
    app.signal("TERM");
    assert_eq!(app.exit().await.code(), Some(0));
    let spans = collector.spans();
    let mut seen = BTreeSet::new();
    for span in &spans {
        // A request's span is renamed once its route is known.
        let name = if span.attributes.contains_key("http.request.method") { "request" } else { &span.name };
        let declared = CATALOG.spans.iter().find(|declared| declared.name == name);
        let declared = declared.unwrap_or_else(|| panic!("{name} isn't declared: {span:#?}"));
        for attribute in span.attributes.keys() {
            assert!(declared.fields.contains(&attribute.as_str()), "{name} has an undeclared {attribute}");
        }
        seen.insert(declared.name);
        for (event, _) in &span.events {
            assert!(
                CATALOG.events.iter().any(|declared| declared.name == event),
                "{name} has an undeclared event {event}"
            );
        }
    }
    let missing: Vec<_> = CATALOG.spans.iter().map(|span| span.name).filter(|name| !seen.contains(name)).collect();
    assert_eq!(missing, ["cache_refresh", "cache_bus"], "all others are made in such a session");
}

#[tokio::test]
async fn every_line_of_the_service_is_a_request_or_a_declared_event_with_its_fields() {
    let (mut app, _collector) = app().await;
    session(&app).await;
    app.signal("TERM");
    assert_eq!(app.exit().await.code(), Some(0));
    let always = ["timestamp", "level", "target", "message", "event.name", "trace_id", "span_id", "request_id"];
    let mut events = 0;
    for line in app.log() {
        let target = line["target"].as_str().unwrap();
        if !["plinth", "tiered_cache", "telemetry"].iter().any(|own| target.split("::").next() == Some(own)) {
            continue;
        }
        let name = line["event.name"].as_str().unwrap_or_else(|| panic!("an event without a name: {line}"));
        let declared = CATALOG.events.iter().find(|declared| declared.name == name);
        let declared = declared.unwrap_or_else(|| panic!("{name} isn't declared"));
        for field in line.as_object().unwrap().keys() {
            let known = always.contains(&field.as_str()) || declared.fields.contains(&field.as_str());
            assert!(known, "{name} has an undeclared {field}");
        }
        events += 1;
    }
    assert!(events > 5, "a life has more events than {events}");
}
