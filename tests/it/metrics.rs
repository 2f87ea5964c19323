//! `/metrics`.

use devkit::wait_until;
use reqwest::Method;

use crate::support::{Answer, Collector, LIMIT, TOKEN, TestApp};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn scrape(app: &TestApp, accept: &str) -> Answer {
    app.send(app.request(Method::GET, "/metrics").header("accept", accept)).await
}

/// Samples whose name and labels contain all of these texts.
fn samples<'a>(text: &'a str, parts: &[&str]) -> Vec<&'a str> {
    text.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part))).collect()
}

/// The sum of such samples.
fn sum(text: &str, parts: &[&str]) -> f64 {
    samples(text, parts).iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn who_does_not_ask_for_more_gets_plain_text() {
    let app = TestApp::start().await;
    app.get("/api/test").await;
    for accept in ["", "*/*", "text/plain", "text/plain;version=0.0.4"] {
        let answer = scrape(&app, accept).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (200, "text/plain; version=0.0.4; charset=utf-8")
        );
        assert!(!answer.text.contains("# EOF") && !answer.text.contains("# UNIT") && !answer.text.contains("} # {"));
        assert!(answer.text.contains("# TYPE http_requests_total counter\n"));
    }
}

#[tokio::test]
async fn who_accepts_openmetrics_gets_it() {
    let app = TestApp::start().await;
    app.get("/api/test").await;
    // As Prometheus 3 asks.
    let accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3";
    let answer = scrape(&app, accept).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, OPENMETRICS));
    assert!(answer.text.ends_with("# EOF\n"));
    assert!(answer.text.contains("# TYPE http_requests counter\n"));
    assert!(answer.text.contains("# UNIT http_request_duration_seconds seconds\n"));
}

#[tokio::test]
async fn every_promised_metric_is_there_with_its_help() {
    let app = TestApp::start().await;
    let id = app.create_user("Ada", "ada@example.com").await;
    app.get(&format!("/api/users/{id}")).await;
    app.get("/nothing").await;
    let pool = async || app.get("/metrics").await.text.contains("db_client_connection_count{");
    wait_until("the pool was looked at", LIMIT, pool).await.unwrap();
    let text = app.get("/metrics").await.text;
    let promised = [
        "http_requests_total",
        "http_request_duration_seconds_bucket",
        "http_errors_total",
        "http_error_rate",
        "http_requests_in_flight",
        "db_client_operation_duration_seconds_bucket",
        "db_client_connection_count",
        "db_client_connection_max",
        "db_client_connection_pending_requests",
        "db_client_connection_wait_time_seconds_bucket",
        "db_client_connection_timeouts_total",
        "cache_requests_total",
        "cache_load_seconds_bucket",
        "cache_op_seconds_bucket",
        "cache_fill_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_threads",
        "process_start_time_seconds",
        "tokio_workers",
        "log_lines_dropped_total",
        "panics_total",
        "build_info",
    ];
    for name in promised {
        assert!(!samples(&text, &[name]).is_empty(), "no {name} in\n{text}");
        let family = name.trim_end_matches("_bucket");
        assert!(text.contains(&format!("# HELP {family} ")), "no help for {family}");
        assert!(text.contains(&format!("# TYPE {family} ")), "no type for {family}");
    }
    assert!(samples(&text, &["build_info{", "version=\"", "revision=\"", "} 1"]).len() == 1, "{text}");
}

#[tokio::test]
async fn requests_are_counted_by_method_route_and_status() {
    let app = TestApp::start().await;
    let path = format!("/api/users/{}", app.create_user("Ada", "ada@example.com").await);
    for _ in 0..3 {
        app.get(&path).await;
    }
    app.get("/api/users/99").await;
    app.get("/nothing").await;
    let text = app.get("/metrics").await.text;
    let count = |name: &str, method: &str, route: &str, status: &str| {
        let labels = [("method", method), ("route", route)].map(|(label, value)| {
            let label = if label == "method" { "http_request_method" } else { "http_route" };
            format!("{label}=\"{value}\"")
        });
        sum(&text, &[&format!("{name}{{"), &labels[0], &labels[1], status])
    };
    let requests = "http_requests_total";
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
    assert!(close(count(requests, "GET", "/api/users/{id}", "status_code=\"200\""), 3.0), "{text}");
    assert!(close(count(requests, "GET", "/api/users/{id}", "status_code=\"404\""), 1.0), "{text}");
    assert!(close(count(requests, "POST", "/api/users", "status_code=\"201\""), 1.0), "{text}");
    assert!(close(count(requests, "GET", "unmatched", "status_code=\"404\""), 1.0), "{text}");
    assert!(close(count("http_request_duration_seconds_count", "GET", "/api/users/{id}", ""), 4.0), "{text}");
}

#[tokio::test]
async fn errors_are_counted_by_route_and_class_and_as_a_share() {
    let app = TestApp::builder().env("REQUEST_TIMEOUT", "3s").env("DATA_COMPUTE_TIME", "20s").start().await;
    app.get("/api/test").await;
    app.get("/api/test").await;
    app.get("/api/users/99").await.problem(404);
    app.get("/api/data/slow").await.problem(504);
    assert_eq!(app.get("/health/ready").await.status, 200, "probes aren't part of the share");
    let text = app.get("/metrics").await.text;
    assert!((sum(&text, &["http_errors_total{", "\"/api/users/{id}\"", "class=\"4xx\""]) - 1.0).abs() < 1e-9, "{text}");
    assert!((sum(&text, &["http_errors_total{", "\"/api/data/{id}\"", "class=\"5xx\""]) - 1.0).abs() < 1e-9, "{text}");
    assert!(samples(&text, &["http_errors_total{", "\"/api/test\""]).is_empty(), "{text}");
    assert!((app.metric("http_error_rate").await.unwrap() - 50.0).abs() < 1e-9);
}

#[tokio::test]
async fn the_cache_counts_by_tier_and_outcome() {
    let app = TestApp::start().await;
    let path = format!("/api/users/{}", app.create_user("Ada", "ada@example.com").await);
    app.get(&path).await;
    app.get(&path).await;
    app.get(&path).await;
    let text = app.get("/metrics").await.text;
    let served = |tier: &str| sum(&text, &["cache_requests_total{", "cache=\"user\"", &format!("tier=\"{tier}\"")]);
    assert!((served("l1") - 2.0).abs() < 1e-9 && (served("source") - 1.0).abs() < 1e-9, "{text}");
}

#[tokio::test]
async fn exemplars_name_sampled_traces_alone() {
    let collector = Collector::http();
    let app = TestApp::builder().env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).start().await;
    let unsampled = "11112222333344445555666677778888";
    let get = |path: &str, trace: &str, flags: &str| {
        let parent = format!("00-{trace}-00f067aa0ba902b7-{flags}");
        app.send(app.request(Method::GET, path).header("traceparent", parent))
    };
    assert_eq!(get("/api/test", TRACE, "01").await.status, 200);
    assert_eq!(get("/api/data/a", unsampled, "00").await.status, 200);
    let text = scrape(&app, "application/openmetrics-text").await.text;
    let exemplars = samples(&text, &["http_request_duration_seconds_bucket", "# {"]);
    let of_trace: Vec<_> = exemplars.iter().filter(|line| line.contains(&format!("trace_id=\"{TRACE}\""))).collect();
    assert_eq!(of_trace.len(), 1, "{exemplars:?}");
    assert!(of_trace[0].contains("http_route=\"/api/test\""), "{of_trace:?}");
    assert!(!text.contains(unsampled));
    assert!(!app.get("/metrics").await.text.contains(TRACE), "plain text has no exemplars");
}

#[tokio::test]
async fn no_label_holds_what_clients_send() {
    let app = TestApp::start().await;
    let odd = Method::from_bytes(b"HUNTER2").unwrap();
    app.send(app.request(odd, "/api/users/hunter2?hunter2=hunter2").header("user-agent", "hunter2")).await;
    app.get("/hunter2").await;
    app.get("/api/data/hunter2").await;
    app.send(app.request(Method::PUT, "/api/cache/hunter2").bearer_auth(TOKEN).json(&1)).await;
    let text = app.get("/metrics").await.text;
    assert!(!text.to_lowercase().contains("hunter2"), "{text}");
    assert_eq!(samples(&text, &["http_requests_total{", "\"_OTHER\""]).len(), 1);
}
