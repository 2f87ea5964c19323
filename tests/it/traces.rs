//! Spans, as they arrive at a collector that speaks real OTLP.

use reqwest::Method;

use crate::support::{Answer, Collector, Recorded, TOKEN, TestApp};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A service that sends its spans soon.
async fn app_for(collector: &Collector, env: &[(&str, &str)]) -> TestApp {
    let app = TestApp::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("REDIS_TIMEOUT", "10s");
    env.iter().fold(app, |app, (name, value)| app.env(name, value)).start().await
}

async fn get_in(app: &TestApp, path: &str, trace: &str, sampled: bool) -> Answer {
    let flags = if sampled { "01" } else { "00" };
    app.send(app.request(Method::GET, path).header("traceparent", format!("00-{trace}-{PARENT}-{flags}"))).await
}

fn millis(answer: &Answer) -> f64 {
    answer.header("x-response-time").trim_end_matches("ms").parse().unwrap()
}

fn named<'a>(spans: &'a [Recorded], name: &str) -> &'a Recorded {
    let mut found = spans.iter().filter(|span| span.name == name);
    let one = found.next().unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
    assert!(found.next().is_none(), "more than one {name} in {spans:#?}");
    one
}

fn attribute<'a>(span: &'a Recorded, name: &str) -> &'a str {
    span.attributes.get(name).map_or("", String::as_str)
}

/// The span is above the other, directly or not.
fn is_ancestor(spans: &[Recorded], above: &Recorded, below: &Recorded) -> bool {
    let mut parent = &below.parent_id;
    while let Some(span) = spans.iter().find(|span| span.span_id == *parent) {
        if span.span_id == above.span_id {
            return true;
        }
        parent = &span.parent_id;
    }
    false
}

fn has_event(spans: &[Recorded], name: &str) -> bool {
    spans.iter().any(|span| span.events.iter().any(|(event, _)| event == name))
}

/// Ends the service in order, so that everything it has to send is sent.
async fn stop(mut app: TestApp) {
    app.signal("TERM");
    assert_eq!(app.exit().await.code(), Some(0));
}

async fn a_request_is_a_tree(collector: Collector, protocol: &str) {
    let app = app_for(&collector, &[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]).await;
    let id = app.create_user("Ada", "ada@example.com").await;
    let answer = get_in(&app, &format!("/api/users/{id}?q=1"), TRACE, true).await;
    assert_eq!(answer.status, 200);
    let spans = collector.wait_for(TRACE, "GET /api/users/{id}").await;

    let root = named(&spans, "GET /api/users/{id}");
    assert_eq!((root.parent_id.as_str(), root.kind, root.status), (PARENT, 2, 0));
    assert_eq!(attribute(root, "http.request.method"), "GET");
    assert_eq!(attribute(root, "http.route"), "/api/users/{id}");
    assert_eq!(attribute(root, "http.response.status_code"), "200");
    assert_eq!(attribute(root, "url.path"), format!("/api/users/{id}"));
    assert_eq!(attribute(root, "url.scheme"), "http");
    assert_eq!(attribute(root, "client.address"), "127.0.0.1");
    let get_user = named(&spans, "get_user");
    assert_eq!(get_user.parent_id, root.span_id);
    assert_eq!(attribute(get_user, "user.id"), id.to_string());
    let query = named(&spans, "database_query");
    assert!(is_ancestor(&spans, get_user, query), "{spans:#?}");
    assert_eq!(query.kind, 3);
    assert_eq!(attribute(query, "db.system.name"), "postgresql");
    assert_eq!(attribute(query, "db.operation.name"), "user");
    assert_eq!(attribute(query, "db.query.text"), "select id, name, email, version from users where id = $1");
    assert!(has_event(&spans, "cache_set") && !has_event(&spans, "cache_hit"), "{spans:#?}");
    assert_eq!(root.resource["service.name"], "plinth");
}

#[tokio::test]
async fn by_grpc_a_request_is_a_tree_of_spans_under_its_caller() {
    a_request_is_a_tree(Collector::grpc().await, "grpc").await;
}

#[tokio::test]
async fn by_http_a_request_is_a_tree_of_spans_under_its_caller() {
    a_request_is_a_tree(Collector::http(), "http/protobuf").await;
}

#[tokio::test]
async fn a_hit_is_an_event_and_asks_no_database() {
    let collector = Collector::http();
    let app = app_for(&collector, &[]).await;
    let path = format!("/api/users/{}", app.create_user("Ada", "ada@example.com").await);
    app.get(&path).await;
    get_in(&app, &path, TRACE, true).await;
    let spans = collector.wait_for(TRACE, "GET /api/users/{id}").await;
    let (event, attributes) = &named(&spans, "get_user").events[0];
    assert_eq!((event.as_str(), attributes["cache.tier"].as_str()), ("cache_hit", "l1"));
    assert!(spans.iter().all(|span| span.name != "database_query"), "{spans:#?}");
}

#[tokio::test]
async fn the_resource_says_who_sends() {
    let collector = Collector::http();
    let attributes = "deployment.environment.name=staging,team=a%20b";
    let app = app_for(&collector, &[("OTEL_SERVICE_NAME", "orders"), ("OTEL_RESOURCE_ATTRIBUTES", attributes)]).await;
    get_in(&app, "/api/test", TRACE, true).await;
    let resource = collector.wait_for(TRACE, "GET /api/test").await.remove(0).resource;
    assert_eq!(resource["service.name"], "orders");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(!resource["service.instance.id"].is_empty());
    assert_eq!(resource["deployment.environment.name"], "staging");
    assert_eq!(resource["team"], "a b");
}

#[tokio::test]
async fn an_endpoint_for_traces_is_taken_as_it_is() {
    let collector = Collector::http();
    let whole = format!("{}/v1/traces", collector.endpoint);
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", whole.as_str())];
    let app = app_for(&collector, &env).await;
    get_in(&app, "/api/test", TRACE, true).await;
    collector.wait_for(TRACE, "GET /api/test").await;
}

#[tokio::test]
async fn the_last_span_before_sigterm_arrives() {
    for protocol in ["grpc", "http/protobuf"] {
        let collector = if protocol == "grpc" { Collector::grpc().await } else { Collector::http() };
        // By itself the exporter would wait for an hour.
        let env = [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
        let app = app_for(&collector, &env).await;
        get_in(&app, "/api/test", TRACE, true).await;
        assert!(collector.trace(TRACE).is_empty());
        stop(app).await;
        named(&collector.trace(TRACE), "GET /api/test");
    }
}

#[tokio::test]
async fn what_the_caller_does_not_sample_is_not_sent_but_keeps_its_id() {
    let collector = Collector::http();
    let app = app_for(&collector, &[]).await;
    let answer = get_in(&app, "/api/test", TRACE, false).await;
    let line = app.wait_for_line("the request is logged", |line| line["trace_id"] == TRACE).await;
    assert_eq!(line["url.path"], "/api/test");
    app.get("/api/test").await;
    stop(app).await;
    // One that takes a second has a span in any case.
    let slow = millis(&answer) >= 1000.0;
    assert_eq!(collector.trace(TRACE).len(), usize::from(slow));
    assert!(!collector.spans().is_empty(), "a request without a caller's decision is sampled");
}

#[tokio::test]
async fn a_ratio_of_zero_samples_nothing_whatever_the_caller_says() {
    let collector = Collector::http();
    let env = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let app = app_for(&collector, &env).await;
    get_in(&app, "/api/test", TRACE, true).await;
    app.get("/api/test").await;
    stop(app).await;
    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn a_parent_based_ratio_of_zero_follows_the_caller() {
    let collector = Collector::http();
    let env = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let app = app_for(&collector, &env).await;
    get_in(&app, "/api/test", TRACE, true).await;
    app.get("/api/test").await;
    stop(app).await;
    let spans = collector.spans();
    assert!(!spans.is_empty() && spans.iter().all(|span| span.trace_id == TRACE), "{spans:#?}");
}

#[tokio::test]
async fn switched_off_nothing_is_sent() {
    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let collector = Collector::http();
        let app = app_for(&collector, &[(name, value)]).await;
        get_in(&app, "/api/test", TRACE, true).await;
        stop(app).await;
        assert_eq!(collector.spans().len(), 0, "{name}");
    }
}

#[tokio::test]
async fn probes_and_scrapes_are_not_traced() {
    let collector = Collector::http();
    let app = app_for(&collector, &[]).await;
    for path in ["/health", "/health/live", "/health/ready", "/health/startup", "/metrics"] {
        get_in(&app, path, TRACE, true).await;
    }
    stop(app).await;
    assert_eq!(collector.trace(TRACE).len(), 0);
}

#[tokio::test]
async fn a_malformed_traceparent_begins_a_new_trace() {
    let collector = Collector::http();
    let app = app_for(&collector, &[]).await;
    for bad in [format!("00-{TRACE}-0000000000000000-01"), format!("00-{TRACE}-{PARENT}"), "x".repeat(5000)] {
        let request = app.request(Method::GET, "/api/test").header("traceparent", bad);
        assert_eq!(app.send(request).await.status, 200);
    }
    stop(app).await;
    assert_eq!(collector.trace(TRACE).len(), 0);
    let roots = collector.spans().into_iter().filter(|span| span.name == "GET /api/test");
    assert_eq!(roots.filter(|span| span.parent_id.is_empty()).count(), 3);
}

#[tokio::test]
async fn a_failure_of_the_service_is_an_error_on_the_span_and_one_of_the_client_is_not() {
    let collector = Collector::http();
    let app = app_for(&collector, &[("REQUEST_TIMEOUT", "3s"), ("DATA_COMPUTE_TIME", "20s")]).await;
    get_in(&app, "/api/data/slow", TRACE, true).await.problem(504);
    let spans = collector.wait_for(TRACE, "GET /api/data/{id}").await;
    let root = named(&spans, "GET /api/data/{id}");
    assert_eq!((root.status, attribute(root, "error.type")), (2, "504"));
    assert_eq!(attribute(root, "http.response.status_code"), "504");

    let other = "11112222333344445555666677778888";
    get_in(&app, "/api/users/7", other, true).await.problem(404);
    let spans = collector.wait_for(other, "GET /api/users/{id}").await;
    let root = named(&spans, "GET /api/users/{id}");
    assert_eq!((root.status, attribute(root, "error.type")), (0, ""));
}

#[tokio::test]
async fn an_unknown_path_does_not_name_a_span() {
    let collector = Collector::http();
    let app = app_for(&collector, &[]).await;
    get_in(&app, "/secret/path", TRACE, true).await.problem(404);
    let spans = collector.wait_for(TRACE, "GET").await;
    assert_eq!(attribute(named(&spans, "GET"), "http.route"), "");
}

#[tokio::test]
async fn query_strings_and_tokens_are_in_no_span() {
    let collector = Collector::http();
    let app = app_for(&collector, &[]).await;
    let id = app.create_user("Ada", "ada@example.com").await;
    for path in [format!("/api/users/{id}"), "/api/users".to_owned(), "/api/data/a".to_owned(), "/x".to_owned()] {
        get_in(&app, &format!("{path}?token=hunter2"), TRACE, true).await;
    }
    app.send(app.request(Method::DELETE, "/api/users/77?key=hunter2").bearer_auth(TOKEN)).await.problem(404);
    stop(app).await;
    let spans = collector.spans();
    assert!(spans.len() > 5);
    for span in spans {
        let text = format!("{span:?}");
        assert!(!text.contains("hunter2") && !text.contains(TOKEN), "{text}");
    }
}

#[tokio::test]
async fn what_redis_is_asked_for_is_a_clients_span_that_says_when_it_failed() {
    let other = "11112222333344445555666677778888";
    let collector = Collector::http();
    let well = app_for(&collector, &[]).await;
    let dead = app_for(&collector, &[("REDIS_URL", "redis://127.0.0.1:1")]).await;
    for (app, trace, error) in [(&well, TRACE, ""), (&dead, other, "_OTHER")] {
        get_in(app, "/api/cache/a", trace, true).await;
        let write = app.request(Method::POST, "/api/users").bearer_auth(TOKEN);
        let write = write.json(&serde_json::json!({"name": "Ada", "email": "ada@example.com"}));
        assert_eq!(app.send(write.header("traceparent", format!("00-{trace}-{PARENT}-01"))).await.status, 201);
        collector.wait_for(trace, "GET /api/cache/{key}").await;
        let spans = collector.wait_for(trace, "POST /api/users").await;
        let root = named(&spans, "POST /api/users");
        let told: Vec<_> = spans.iter().filter(|span| span.name == "cache_invalidate").collect();
        let operations: Vec<_> = told.iter().map(|span| attribute(span, "db.operation.name")).collect();
        assert_eq!(operations, ["invalidate"]);
        assert!(told.iter().all(|span| is_ancestor(&spans, root, span)), "{spans:#?}");
        let asked = named(&spans, "redis_command");
        assert_eq!(attribute(asked, "db.operation.name"), "GET");
        for span in told.into_iter().chain([asked]) {
            assert_eq!((span.kind, attribute(span, "db.system.name")), (3, "redis"));
            assert_eq!((span.status == 2, attribute(span, "error.type")), (!error.is_empty(), error));
        }
    }
}
