//! Traces as a real Jaeger shows them. It has one set of ports, so one test does it all.

use std::process::Stdio;
use std::time::Duration;

use devkit::wait_until;
use reqwest::Method;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::TestApp;

const PARENT: &str = "00f067aa0ba902b7";
/// Jaeger takes a few seconds to start on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const QUERY: &str = "http://127.0.0.1:16686";

/// Jaeger 2 without arguments: collector, storage in memory and query API in one.
async fn start_jaeger() -> Child {
    let program = devkit::find("jaeger").unwrap_or_else(|| {
        panic!(
            "there is no `jaeger` on this machine: https://www.jaegertracing.io/download/ (version 2), put it into PATH"
        )
    });
    let taken = std::net::TcpStream::connect("127.0.0.1:16686").is_ok();
    assert!(!taken, "something else, perhaps another Jaeger, has the port 16686");
    let mut command = Command::new(program);
    command.env("JAEGER_LISTEN_HOST", "127.0.0.1").stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut jaeger = command.spawn().unwrap();
    let client = crate::support::client();
    let up = async || {
        assert_eq!(jaeger.try_wait().unwrap(), None, "Jaeger ended; are its ports 4317, 4318, 16686 free?");
        client.get("http://127.0.0.1:13133/status").send().await.is_ok_and(|answer| answer.status().is_success())
    };
    wait_until("Jaeger is up", LIMIT, up).await.unwrap();
    jaeger
}

/// The spans of a trace and its processes, once a span of this name is there.
async fn trace(app: &TestApp, id: &str, name: &str) -> (Vec<Value>, Value) {
    let found = async || -> Option<(Vec<Value>, Value)> {
        let answer = app.client.get(format!("{QUERY}/api/traces/{id}")).send().await.ok()?;
        let trace = answer.json::<Value>().await.ok()?["data"][0].clone();
        let spans = trace["spans"].as_array()?.clone();
        spans.iter().any(|span| span["operationName"] == name).then(|| (spans, trace["processes"].clone()))
    };
    wait_until("Jaeger has the trace", LIMIT, async || found().await.is_some()).await.unwrap();
    found().await.unwrap()
}

fn named<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    spans.iter().find(|span| span["operationName"] == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

fn tag<'a>(tags: &'a Value, key: &str) -> &'a Value {
    let found = tags.as_array().unwrap().iter().find(|tag| tag["key"] == key);
    found.map_or(&Value::Null, |tag| &tag["value"])
}

fn parent(span: &Value) -> &str {
    let references = span["references"].as_array().unwrap();
    references.iter().find(|one| one["refType"] == "CHILD_OF").map_or("", |one| one["spanID"].as_str().unwrap())
}

fn events(spans: &[Value]) -> Vec<&str> {
    let logs = spans.iter().flat_map(|span| span["logs"].as_array().unwrap());
    logs.flat_map(|log| log["fields"].as_array().unwrap())
        .filter(|field| field["key"] == "event")
        .map(|field| field["value"].as_str().unwrap())
        .collect()
}

/// Random, so that an earlier run can't answer for this one.
fn trace_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

async fn get_in(app: &TestApp, path: &str, trace: &str) {
    let parent = format!("00-{trace}-{PARENT}-01");
    let answer = app.send(app.request(Method::GET, path).header("traceparent", parent)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

async fn shows_traces(endpoint: &str, protocol: &str) {
    let mut app = TestApp::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("REDIS_TIMEOUT", "10s")
        .start()
        .await;
    let id = app.create_user("Ada", "ada@example.com").await;
    let path = format!("/api/users/{id}");
    let (loaded, hit, last) = (trace_id(), trace_id(), trace_id());
    get_in(&app, &path, &loaded).await;
    get_in(&app, &path, &hit).await;

    let (spans, processes) = trace(&app, &loaded, "GET /api/users/{id}").await;
    let root = named(&spans, "GET /api/users/{id}");
    assert_eq!(parent(root), PARENT);
    assert_eq!(tag(&root["tags"], "span.kind"), "server");
    assert_eq!(tag(&root["tags"], "http.route"), "/api/users/{id}");
    assert_eq!(tag(&root["tags"], "http.response.status_code"), 200);
    let get_user = named(&spans, "get_user");
    assert_eq!(parent(get_user), root["spanID"]);
    assert_eq!(tag(&get_user["tags"], "user.id"), id);
    let query = named(&spans, "database_query");
    let above = spans.iter().find(|span| span["spanID"] == parent(query)).unwrap();
    assert!(above == get_user || parent(above) == get_user["spanID"], "{spans:#?}");
    assert_eq!(tag(&query["tags"], "db.system.name"), "postgresql");
    assert_eq!(tag(&query["tags"], "db.operation.name"), "user");
    assert!(events(&spans).contains(&"cache_set"), "{spans:#?}");
    let process = &processes[root["processID"].as_str().unwrap()];
    assert_eq!(process["serviceName"], "plinth");
    assert_eq!(tag(&process["tags"], "service.version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(tag(&process["tags"], "deployment.environment.name"), "test");
    assert!(tag(&process["tags"], "service.instance.id").is_string());

    let (spans, _) = trace(&app, &hit, "GET /api/users/{id}").await;
    assert!(events(&spans).contains(&"cache_hit"), "{spans:#?}");
    assert!(spans.iter().all(|span| span["operationName"] != "database_query"), "{spans:#?}");

    get_in(&app, "/api/test", &last).await;
    app.signal("TERM");
    assert_eq!(app.exit().await.code(), Some(0));
    trace(&app, &last, "GET /api/test").await;
}

#[tokio::test]
async fn jaeger_shows_the_tree_of_a_request_by_both_protocols() {
    let _jaeger = start_jaeger().await;
    shows_traces("http://127.0.0.1:4317", "grpc").await;
    shows_traces("http://127.0.0.1:4318", "http/protobuf").await;
}
