//! Which requests have spans although the sample left them out, and how traces are tied together.

use std::collections::BTreeMap;

use devkit::wait_until;
use reqwest::Method;

use crate::support::{Answer, Builder, Collector, LIMIT, Recorded, TOKEN, TestApp, redis};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER: &str = "11112222333344445555666677778888";
const PARENT: &str = "00f067aa0ba902b7";

fn builder_for(collector: &Collector, env: &[(&str, &str)]) -> Builder {
    let app = TestApp::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100");
    env.iter().fold(app, |app, (name, value)| app.env(name, value))
}

async fn app_for(collector: &Collector, env: &[(&str, &str)]) -> TestApp {
    builder_for(collector, env).start().await
}

async fn get_in(app: &TestApp, path: &str, trace: &str, flags: &str) -> Answer {
    app.send(app.request(Method::GET, path).header("traceparent", format!("00-{trace}-{PARENT}-{flags}"))).await
}

fn only<'a>(spans: &'a [Recorded], name: &str) -> &'a Recorded {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

#[tokio::test]
async fn a_failed_request_that_was_not_sampled_has_a_span_under_its_caller_all_the_same() {
    let collector = Collector::http();
    let env = [("REQUEST_TIMEOUT", "200ms"), ("DATA_COMPUTE_TIME", "5s")];
    let app = app_for(&collector, &env).await;
    get_in(&app, "/api/data/a", TRACE, "00").await.problem(504);
    let spans = collector.wait_for(TRACE, "GET /api/data/{id}").await;
    let line = app.wait_for_line("the request", |line| line["trace_id"] == TRACE).await;
    assert_eq!(spans.len(), 1, "its children were never made: {spans:#?}");
    let span = only(&spans, "GET /api/data/{id}");
    assert_eq!((span.kind, span.status, span.parent_id.as_str()), (2, 2, PARENT));
    assert_eq!(span.span_id, line["span_id"].as_str().unwrap(), "log and trace agree");
    assert_eq!(span.attributes["http.response.status_code"], "504");
}

#[tokio::test]
async fn a_slow_request_that_was_not_sampled_has_a_span_all_the_same() {
    let collector = Collector::http();
    let app = app_for(&collector, &[("DATA_COMPUTE_TIME", "1100ms")]).await;
    assert_eq!(get_in(&app, "/api/data/a", TRACE, "00").await.status, 200);
    let spans = collector.wait_for(TRACE, "GET /api/data/{id}").await;
    assert_eq!(only(&spans, "GET /api/data/{id}").status, 0, "slow is not failed");
}

#[tokio::test]
async fn a_share_of_zero_leaves_failures_out_too() {
    let collector = Collector::http();
    let env = [("OTEL_TRACES_SAMPLER", "always_off"), ("REQUEST_TIMEOUT", "200ms"), ("DATA_COMPUTE_TIME", "5s")];
    let mut app = app_for(&collector, &env).await;
    app.get("/api/data/a").await.problem(504);
    app.signal("TERM");
    assert_eq!(app.exit().await.code(), Some(0));
    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn every_answer_names_its_trace_and_whether_it_is_recorded() {
    let collector = Collector::http();
    let app = app_for(&collector, &[]).await;
    for (flags, id) in [("01", TRACE), ("00", OTHER)] {
        let answer = get_in(&app, "/api/users/99", id, flags).await;
        let line = app.wait_for_line("the request", |line| line["trace_id"] == id).await;
        let expected = format!("00-{id}-{}-{flags}", line["span_id"].as_str().unwrap());
        assert_eq!(answer.header("traceresponse"), expected);
    }
}

#[tokio::test]
async fn a_request_that_joins_anothers_load_links_to_it() {
    let collector = Collector::http();
    let app = app_for(&collector, &[("DATA_COMPUTE_TIME", "500ms"), ("REDIS_TIMEOUT", "10s")]).await;
    let (one, other) = tokio::join!(get_in(&app, "/api/data/a", TRACE, "01"), get_in(&app, "/api/data/a", OTHER, "01"));
    assert_eq!((one.status.as_u16(), other.status.as_u16()), (200, 200));
    let mut spans = collector.wait_for(TRACE, "GET /api/data/{id}").await;
    spans.extend(collector.wait_for(OTHER, "GET /api/data/{id}").await);
    let load = only(&spans, "cache_load");
    let handlers: Vec<_> = spans.iter().filter(|span| span.name == "get_data").collect();
    let joined: Vec<_> = handlers.iter().filter(|span| span.trace_id != load.trace_id).collect();
    assert_eq!((handlers.len(), joined.len()), (2, 1), "{spans:#?}");
    assert_eq!(joined[0].links, [load.span_id.as_str()]);
}

#[tokio::test]
async fn an_early_refresh_is_a_trace_of_its_own_linked_to_the_request_that_began_it() {
    let collector = Collector::http();
    let env =
        [("CACHE_L2_TTL", "2s"), ("CACHE_L1_TTL", "2s"), ("DATA_COMPUTE_TIME", "300ms"), ("REDIS_TIMEOUT", "10s")];
    let app = app_for(&collector, &env).await;
    let refreshed = async || {
        app.get("/api/data/a").await;
        collector.spans().iter().any(|span| span.name == "cache_refresh")
    };
    wait_until("a busy key is refreshed early", LIMIT, refreshed).await.unwrap();
    let spans = collector.spans();
    let refresh = spans.iter().find(|span| span.name == "cache_refresh").unwrap();
    assert_eq!((refresh.parent_id.as_str(), refresh.links.len()), ("", 1));
    let begun_by = async || collector.spans().iter().any(|span| span.span_id == refresh.links[0]);
    wait_until("the request that began it arrives", LIMIT, begun_by).await.unwrap();
}

#[tokio::test]
async fn what_another_replica_does_for_a_write_is_a_trace_of_its_own_linked_to_the_write() {
    let collector = Collector::http();
    // The reader would draw none by itself: the writer's decision holds.
    let env = [("OTEL_TRACES_SAMPLER", "parentbased_always_off"), ("REDIS_TIMEOUT", "10s")];
    let writer = app_for(&collector, &env).await;
    let reader = builder_for(&collector, &env).beside(&writer).start().await;
    let cached = async || reader.get("/api/data/a").await.json()["cached"] == true;
    wait_until("the reader has a copy", LIMIT, cached).await.unwrap();
    let delete = |trace: &str, flags: &str| {
        let request = writer.request(Method::DELETE, "/api/data/a").bearer_auth(TOKEN);
        let request = request.header("traceparent", format!("00-{trace}-{PARENT}-{flags}"));
        request.header("tracestate", "vendor=1").header("baggage", "user=hunter2")
    };
    assert_eq!(writer.send(delete(OTHER, "00")).await.status, 204);
    // So that it hears of the next one by itself.
    wait_until("the reader has heard of it", LIMIT, async || !cached().await).await.unwrap();
    assert_eq!(writer.send(delete(TRACE, "01")).await.status, 204);

    let applied = async || collector.spans().iter().any(|span| span.name == "cache_bus");
    wait_until("the reader applies the write", LIMIT, applied).await.unwrap();
    let written = collector.wait_for(TRACE, "DELETE /api/data/{id}").await;
    let spans = collector.spans();
    let bus = only(&spans, "cache_bus");
    assert_eq!((bus.parent_id.as_str(), bus.attributes["entries"].as_str()), ("", "1"));
    assert_eq!(bus.links, [only(&written, "DELETE /api/data/{id}").span_id.as_str()]);
    assert_eq!(bus.link_states, ["vendor=1"]);
    assert_ne!(bus.trace_id, TRACE);

    let mut redis = redis(&writer).await;
    let bus: Vec<String> = ::redis::cmd("KEYS").arg("{plinth}:*:bus").query_async(&mut redis).await.unwrap();
    let read = ::redis::cmd("XRANGE").arg(&bus[0]).arg("-").arg("+").take();
    let entries: Vec<(String, BTreeMap<String, Vec<u8>>)> = read.query_async(&mut redis).await.unwrap();
    assert!(!format!("{entries:?}").contains("hunter2"));
    let named = |number: usize| String::from_utf8(entries[number].1["l"].clone()).unwrap();
    assert_eq!((entries.len(), named(0).as_str()), (2, ""), "only a recorded write is named");
    assert!(named(1).starts_with(&format!("00-{TRACE}-")) && named(1).ends_with("-01 vendor=1"), "{}", named(1));
}

#[tokio::test]
async fn spans_beyond_the_queue_are_dropped_and_each_is_counted() {
    let env = [("OTEL_BSP_MAX_QUEUE_SIZE", "20"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")];
    let collector = Collector::http();
    let proxy = devkit::FaultProxy::start(collector.address).await.unwrap();
    proxy.set(devkit::Fault::BlackHole);
    let endpoint = format!("http://{}", proxy.addr());
    let env = [env[0], env[1], ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let app = app_for(&collector, &env).await;
    for id in 0..100 {
        app.get(&format!("/api/users/{id}")).await;
    }
    let dropped = app.metric("telemetry_spans_total{outcome=\"dropped\"}").await.unwrap();
    assert!(dropped >= 80.0, "{dropped} of at least 100, with room for 20");
}

#[tokio::test]
async fn a_queue_smaller_than_a_batch_leaves_as_soon_as_it_is_full() {
    let collector = Collector::http();
    // By itself the exporter would wait for an hour.
    let env = [("OTEL_BSP_MAX_QUEUE_SIZE", "20"), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    let app = app_for(&collector, &env).await;
    let arrived = async || {
        app.get("/api/test").await;
        !collector.spans().is_empty()
    };
    wait_until("the first full queue arrives", LIMIT, arrived).await.unwrap();
}
