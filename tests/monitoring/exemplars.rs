//! From a number to its request: exemplar, trace and log line are of one request.

use devkit::wait_until;
use serde_json::Value;

use crate::programs::{LIMIT, Programs};
use crate::support::TestApp;

#[tokio::test]
async fn an_exemplar_leads_to_its_trace_and_to_its_log_line() {
    let mut programs = Programs::start().await;
    let app = TestApp::builder().env("OTEL_EXPORTER_OTLP_ENDPOINT", &programs.otlp).start().await;
    programs.watch(&app.url).await;
    assert_eq!(app.get("/api/data/exemplar").await.status, 200);

    let ask = [
        ("query", r#"http_request_duration_seconds_bucket{http_route="/api/data/{id}"}"#),
        ("start", "0"),
        ("end", "9e9"),
    ];
    let exemplar = async || programs.ask("query_exemplars", &ask).await.unwrap()[0]["exemplars"][0].clone();
    wait_until("Prometheus has an exemplar", LIMIT, async || exemplar().await.is_object()).await.unwrap();
    let id = exemplar().await["labels"]["trace_id"].as_str().unwrap().to_owned();

    let trace = async || {
        let answer = app.client.get(format!("{}/api/traces/{id}", programs.jaeger)).send().await.ok()?;
        answer.json::<Value>().await.ok()?["data"][0]["spans"].as_array().cloned()
    };
    let complete = async || {
        trace().await.is_some_and(|spans| spans.iter().any(|span| span["operationName"] == "GET /api/data/{id}"))
    };
    wait_until("Jaeger has the trace", LIMIT, complete).await.unwrap();
    let line = app.wait_for_line("the log has the request", |line| line["trace_id"] == id.as_str()).await;
    assert_eq!(line["url.path"], "/api/data/exemplar");
}
