//! A collector that is away, silent, slow or refuses: requests, memory and the exit don't notice.

use std::time::{Duration, Instant};

use devkit::{Fault, FaultProxy, wait_until};

use crate::support::{Collector, LIMIT, TestApp};

/// A service that sends its spans soon, and drops what it can't send after few.
async fn app_for(endpoint: &str, protocol: &str) -> TestApp {
    TestApp::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "64")
        .start()
        .await
}

async fn spans(app: &TestApp, outcome: &str) -> f64 {
    app.metric(&format!("telemetry_spans_total{{outcome=\"{outcome}\"}}")).await.unwrap_or_default()
}

/// Answers as ever, says what became of the spans, and exits within its bound, with a collector at this address.
async fn bears(endpoint: &str, protocol: &str, lost: &str) {
    let mut app = app_for(endpoint, protocol).await;
    let before = app.metric("process_resident_memory_bytes").await.unwrap();
    let fate = async || {
        for _ in 0..100 {
            let answer = app.get("/api/data/a").await;
            assert_eq!(answer.status, 200);
            let millis: f64 = answer.header("x-response-time").trim_end_matches("ms").parse().unwrap();
            assert!(millis < 5000.0, "one export may take 10 s; a request took {millis} ms");
        }
        spans(&app, lost).await > 0.0
    };
    wait_until(&format!("spans count as {lost}"), LIMIT, fate).await.unwrap();
    let grown = app.metric("process_resident_memory_bytes").await.unwrap() - before;
    assert!(grown < 32e6, "64 spans may wait, not {grown} bytes of them");
    let began = Instant::now();
    app.signal("TERM");
    assert_eq!(app.exit().await.code(), Some(0));
    // 2 s for the last spans, the rest for a busy machine; well below the 10 s that one export may take.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

async fn bears_a(fault: Fault, lost: &str) {
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::http();
        let proxy = FaultProxy::start(collector.address).await.unwrap();
        proxy.set(fault);
        bears(&format!("http://{}", proxy.addr()), protocol, lost).await;
        assert!(collector.spans().is_empty());
    }
}

#[tokio::test]
async fn a_collector_that_refuses_costs_neither_requests_nor_the_exit() {
    bears_a(Fault::Refuse, "failed").await;
}

#[tokio::test]
async fn a_collector_that_swallows_costs_neither_requests_nor_the_exit() {
    bears_a(Fault::BlackHole, "dropped").await;
}

#[tokio::test]
async fn a_slow_collector_costs_neither_requests_nor_the_exit() {
    let collector = Collector::http();
    let proxy = FaultProxy::start(collector.address).await.unwrap();
    proxy.set(Fault::Latency(Duration::from_secs(3)));
    bears(&format!("http://{}", proxy.addr()), "http/protobuf", "dropped").await;
    assert!(!collector.spans().is_empty(), "slow is not lost");
}

#[tokio::test]
async fn a_collector_that_answers_503_costs_neither_requests_nor_the_exit() {
    let broken = Collector::answering(503);
    bears(&broken.endpoint, "http/protobuf", "failed").await;
    assert!(broken.spans().is_empty());
}

#[tokio::test]
async fn spans_flow_again_when_the_collector_comes_back() {
    let collector = Collector::http();
    let proxy = FaultProxy::start(collector.address).await.unwrap();
    proxy.set(Fault::Refuse);
    let app = app_for(&format!("http://{}", proxy.addr()), "http/protobuf").await;
    app.get("/api/test").await;
    let failed = async || spans(&app, "failed").await > 0.0;
    wait_until("a span is lost", LIMIT, failed).await.unwrap();
    proxy.set(Fault::None);
    let arrives = async || {
        app.get("/api/test").await;
        !collector.spans().is_empty()
    };
    wait_until("a span arrives", LIMIT, arrives).await.unwrap();
    let exported = async || spans(&app, "exported").await > 0.0;
    wait_until("it counts as exported", LIMIT, exported).await.unwrap();
}
