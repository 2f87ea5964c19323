//! The log: one JSON object a line, and nobody's text makes a second one.

use std::process::Stdio;

use devkit::wait_until;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::support::{Connection, LIMIT, TOKEN, TestApp, program, signal};

/// The line of the request with this id.
async fn line_of(app: &TestApp, request_id: &str) -> Value {
    app.wait_for_line("the request is logged", |line| line["request_id"] == request_id).await
}

async fn get_as(app: &TestApp, path: &str, request_id: &str) -> Value {
    app.send(app.request(Method::GET, path).header("x-request-id", request_id)).await;
    line_of(app, request_id).await
}

#[tokio::test]
async fn every_request_has_one_line_with_its_ids() {
    let app = TestApp::start().await;
    let line = get_as(&app, "/api/users/7", "one").await;
    assert_eq!(
        (&line["level"], &line["message"], &line["target"]),
        (&json!("INFO"), &json!("request"), &json!("access"))
    );
    assert_eq!(line["http.request.method"], "GET");
    assert_eq!(line["http.route"], "/api/users/{id}");
    assert_eq!(line["url.path"], "/api/users/7");
    assert_eq!(line["http.response.status_code"], 404);
    assert_eq!(line["client.address"], "127.0.0.1");
    assert_eq!(line["cache"], "source");
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    let hex = |field: &str| {
        let text = line[field].as_str().unwrap();
        assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        text.len()
    };
    assert_eq!((hex("trace_id"), hex("span_id")), (32, 16));
    get_as(&app, "/api/test", "two").await;
    assert_eq!(app.log().iter().filter(|line| line["request_id"] == "one").count(), 1);
}

#[tokio::test]
async fn a_line_has_the_callers_trace_and_a_problem_the_same() {
    let app = TestApp::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = app.request(Method::GET, "/nothing").header("x-request-id", "traced");
    let answer = app.send(request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))).await;
    let line = line_of(&app, "traced").await;
    assert_eq!(line["trace_id"], trace);
    assert_ne!(line["span_id"], "00f067aa0ba902b7", "the caller's span is the parent");
    assert_eq!(answer.problem(404)["trace_id"], trace);
}

#[tokio::test]
async fn without_a_caller_a_problem_names_the_trace_of_its_line() {
    let app = TestApp::start().await;
    let answer = app.send(app.request(Method::GET, "/nothing").header("x-request-id", "untraced")).await;
    assert_eq!(line_of(&app, "untraced").await["trace_id"], answer.problem(404)["trace_id"]);
}

#[tokio::test]
async fn text_from_clients_forges_no_line() {
    let app = TestApp::start().await;
    let evil = "%0A{%22message%22:%22forged%22}%0D%0A%1B[31m%00%22";
    for path in
        [format!("/{evil}"), format!("/api/users/{evil}"), format!("/api/data/{evil}"), format!("/api/cache/{evil}")]
    {
        app.send(app.request(Method::GET, &path).header("x-request-id", "forger")).await;
    }
    let mut connection = Connection::open(&app).await;
    let agent = b"user-agent: \"}\t{\"message\":\"forged\"}\xff\xc2\x9b31m\\n\r\n".as_slice();
    connection
        .send([b"GET /nothing HTTP/1.1\r\nhost: x\r\nx-request-id: last\r\n".as_slice(), agent, b"\r\n"].concat())
        .await;
    connection.receive("GET").await;
    line_of(&app, "last").await;
    // Parsing each line is part of reading the log.
    let lines = app.log();
    let of_requests = lines.iter().filter(|line| line["request_id"] == "forger" || line["request_id"] == "last");
    assert_eq!(of_requests.count(), 5, "{lines:?}");
    assert!(lines.iter().all(|line| line["message"] != "forged"));
}

#[tokio::test]
async fn a_request_that_is_no_http_makes_no_odd_line() {
    let app = TestApp::start().await;
    for bytes in
        ["\x1b[31m\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n", "GET /\n{\"message\":\"forged\"} HTTP/1.1\r\n\r\n"]
    {
        let mut connection = Connection::open(&app).await;
        connection.send(bytes).await;
        assert_eq!(connection.receive("GET").await.status, 400);
    }
    get_as(&app, "/api/test", "after").await;
    assert!(app.log().iter().all(|line| line["message"] != "forged"));
}

#[tokio::test]
async fn query_strings_and_tokens_are_in_no_line() {
    let app = TestApp::builder().env("LOG_LEVEL", "trace").start().await;
    for path in ["/api/users", "/api/users/7", "/api/data/a", "/nothing", "/health/live"] {
        app.get(&format!("{path}?token=hunter2")).await;
    }
    let request = app.request(Method::PUT, "/api/cache/a?ttl=hunter2").bearer_auth(TOKEN).json(&1);
    app.send(request.header("x-request-id", "last")).await;
    line_of(&app, "last").await;
    for line in app.log() {
        let text = line.to_string();
        assert!(!text.contains("hunter2") && !text.contains(TOKEN), "{text}");
    }
}

#[tokio::test]
async fn what_went_wrong_inside_is_in_the_log_and_not_in_the_answer() {
    let app = TestApp::builder().start().await;
    let sql = crate::support::sql(&app).await;
    sql.batch_execute("alter table users rename to customers").await.unwrap();
    let answer = app.send(app.request(Method::GET, "/api/users/7").header("x-request-id", "broken")).await;
    answer.problem(500);
    assert!(!answer.text.contains("relation"), "{}", answer.text);
    let line = line_of(&app, "broken").await;
    assert_eq!(line["level"], "ERROR");
    assert!(line["error"].as_str().unwrap().contains("relation \"users\" does not exist"), "{line}");
}

#[tokio::test]
async fn probes_that_succeed_are_not_logged_and_failing_ones_are_no_errors() {
    let app = TestApp::builder().env("MEMORY_LIMIT", "1MiB").without_waiting().start().await;
    let short = async || app.get("/health/ready").await.text.contains("memory");
    wait_until("memory is short", LIMIT, short).await.unwrap();
    for path in ["/health/live", "/metrics", "/health/ready", "/health"] {
        app.send(app.request(Method::GET, path).header("x-request-id", "probe")).await;
    }
    get_as(&app, "/api/test", "last").await;
    let probes: Vec<Value> = app.log().into_iter().filter(|line| line["request_id"] == "probe").collect();
    let logged: Vec<&str> = probes.iter().map(|line| line["url.path"].as_str().unwrap()).collect();
    assert_eq!(logged, ["/health/ready", "/health"]);
    assert!(probes.iter().all(|line| line["level"] == "INFO"), "{probes:?}");
}

#[tokio::test]
async fn a_life_without_trouble_logs_its_phases_and_nothing_of_the_framework() {
    let mut app = TestApp::start().await;
    app.get("/api/test").await;
    app.signal("TERM");
    assert_eq!(app.exit().await.code(), Some(0));
    app.wait_for_line("the last phase", |line| line["phase"] == "Stopped").await;
    for line in app.log() {
        assert_eq!(line["level"], "INFO", "{line}");
        assert!(!line["target"].as_str().unwrap().starts_with("actix"), "{line}");
    }
    let phases: Vec<Value> = app.log().into_iter().filter_map(|line| line.get("phase").cloned()).collect();
    assert_eq!(phases, ["Ready", "Draining", "Stopping", "Stopped"]);
}

#[tokio::test]
async fn the_level_can_be_raised_also_for_one_part() {
    let app = TestApp::builder().env("LOG_LEVEL", "info,access=error").start().await;
    app.get("/api/test").await;
    app.send(app.request(Method::GET, "/api/test")).await;
    let mut app = app;
    app.signal("TERM");
    app.exit().await;
    app.wait_for_line("the last phase", |line| line["phase"] == "Stopped").await;
    assert!(app.log().iter().all(|line| line["target"] != "access"));
}

#[tokio::test]
async fn a_valid_configuration_leaves_stderr_empty() {
    let database = crate::support::database().await;
    let mut command = program();
    command.env("DATABASE_URL", database.url()).env("PORT", "0").env("BIND_ADDRESS", "127.0.0.1");
    command.env("DRAIN_DELAY", "0s").env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stderr = child.stderr.take().unwrap();
    while let Some(line) = lines.next_line().await.unwrap() {
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["phase"] == "Ready" {
            signal(child.id().unwrap(), "TERM");
        }
    }
    let mut text = String::new();
    stderr.read_to_string(&mut text).await.unwrap();
    assert_eq!((text.as_str(), child.wait().await.unwrap().code()), ("", Some(0)));
}

#[tokio::test]
async fn pretty_lines_are_for_people_and_cannot_be_forged_either() {
    let database = crate::support::database().await;
    let mut command = program();
    command.env("DATABASE_URL", database.url()).env("PORT", "0").env("BIND_ADDRESS", "127.0.0.1");
    command.env("LOG_FORMAT", "pretty").stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.contains(" INFO "), "{line}");
        if let Some(port) = line.split("port=").nth(1) {
            break port.split(' ').next().unwrap().to_owned();
        }
    };
    crate::support::client().get(format!("http://127.0.0.1:{port}/%0A%1B[31m")).send().await.unwrap();
    let mut line = lines.next_line().await.unwrap().unwrap();
    while !line.contains(" request ") {
        line = lines.next_line().await.unwrap().unwrap();
    }
    assert!(line.contains("url.path=/%0A%1B") && !line.contains('\u{1b}'), "{line}");
}
