//! From start to exit: signals, phases, and what happens to requests meanwhile.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use devkit::wait_until;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{LIMIT, OwnPostgres, Sql, TestApp, Wire, program};

/// The names of the phases in the order of the log.
fn phases(app: &TestApp) -> Vec<String> {
    let phase = |line: Value| Some(line["phase"].as_str()?.to_owned());
    app.log().into_iter().filter_map(phase).collect()
}

async fn wait_for_phase(app: &TestApp, phase: &str) {
    app.wait_for_line(phase, |line| line["phase"] == phase).await;
}

/// The exit code, waited for at most that long.
async fn exit_within(app: &mut TestApp, limit: Duration) -> Option<i32> {
    timeout(limit, app.exit()).await.expect("the service ends in time").code()
}

#[tokio::test]
async fn a_signal_walks_through_the_phases_in_order() {
    for signal in ["TERM", "INT"] {
        let mut app = TestApp::builder().env("DRAIN_DELAY", "100ms").start().await;

        app.signal(signal);

        assert_eq!(app.exit().await.code(), Some(0), "{signal}");
        assert_eq!(phases(&app), ["Ready", "Draining", "Stopping", "Stopped"], "{signal}");
    }
}

#[tokio::test]
async fn while_draining_requests_are_answered_but_the_probe_sends_them_away() {
    let app = TestApp::builder().env("DRAIN_DELAY", "20s").start().await;
    app.wait_for_health("healthy").await;
    let mut kept = Wire::open(&app.url).await.unwrap();
    kept.send_get("/api/data/1", "").await.unwrap();
    assert!(!kept.answer().await.unwrap().closes());

    app.signal("TERM");
    wait_for_phase(&app, "Draining").await;

    assert_eq!(app.get("/health/ready").await.status, 503);
    assert_eq!(app.get("/health/live").await.status, 200);
    assert_eq!(app.get("/health").await.status, 200);
    kept.send_get("/api/data/1", "").await.unwrap();
    let answer = kept.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.closes(), "{}", answer.head);
    assert!(kept.ended().await);
    let mut new = Wire::open(&app.url).await.unwrap();
    new.send_get("/api/data/2", "").await.unwrap();
    let answer = new.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.closes(), "{}", answer.head);
}

/// What the clients of [`keep_asking`] saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
    lost: std::sync::Mutex<Vec<String>>,
}

/// Asks over one connection as long as that is allowed, then over a new one, until none can be had. Requests carry
/// their own ids. One that gets no answer is lost, unless it was the first on its connection: then nobody knows
/// whether the service ever had it, and its id is kept to look for.
async fn keep_asking(url: String, client: usize, seen: Arc<Seen>) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut turn = 0;
    'connections: while let Ok(mut connection) = Wire::open(&url).await {
        for nth in 0.. {
            turn += 1;
            if seen.stop.load(Ordering::SeqCst) {
                return unknown;
            }
            let id = format!("c{client}-t{turn}");
            let path = format!("/api/data/{}", turn % 50);
            let sent = connection.send_get(&path, &format!("X-Request-Id: {id}\r\n")).await;
            let outcome = match sent {
                Ok(()) => connection.answer().await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(answer) if answer.status == 200 => {
                    seen.answered.fetch_add(1, Ordering::SeqCst);
                    if answer.closes() {
                        continue 'connections;
                    }
                }
                Ok(answer) => seen.lost.lock().unwrap().push(format!("{id}: {answer:?}")),
                Err(error) if nth == 0 && error.kind() != ErrorKind::InvalidData => {
                    unknown.push(id);
                    continue 'connections;
                }
                Err(error) => {
                    seen.lost.lock().unwrap().push(format!("{id}: {error}"));
                    continue 'connections;
                }
            }
        }
    }
    unknown
}

#[tokio::test]
async fn no_accepted_request_is_lost_when_the_service_stops_under_load() {
    let mut app = TestApp::builder().env("DRAIN_DELAY", "1s").env("DATA_COMPUTE_TIME", "50ms").start().await;
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for client in 0..8 {
        clients.spawn(keep_asking(app.url.clone(), client, Arc::clone(&seen)));
    }
    let busy = async || seen.answered.load(Ordering::SeqCst) > 500;
    wait_until("the clients are served", LIMIT, busy).await.unwrap();

    app.signal("TERM");

    assert_eq!(app.exit().await.code(), Some(0));
    let unknown: HashSet<_> = clients.join_all().await.into_iter().flatten().collect();
    assert_eq!(*seen.lost.lock().unwrap(), Vec::<String>::new());
    let begun = app.log().into_iter().filter_map(|line| Some(line["request_id"].as_str()?.to_owned()));
    assert_eq!(
        begun.filter(|id| unknown.contains(id)).collect::<Vec<_>>(),
        Vec::<String>::new(),
        "begun, not answered"
    );
}

#[tokio::test]
async fn a_balancer_that_heeds_the_probe_sees_no_failure() {
    let mut app = TestApp::builder().env("DRAIN_DELAY", "2s").start().await;
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for client in 0..8 {
        clients.spawn(keep_asking(app.url.clone(), client, Arc::clone(&seen)));
    }
    let busy = async || seen.answered.load(Ordering::SeqCst) > 500;
    wait_until("the clients are served", LIMIT, busy).await.unwrap();

    app.signal("TERM");
    wait_until("the probe says so", LIMIT, async || app.get("/health/ready").await.status == 503).await.unwrap();
    seen.stop.store(true, Ordering::SeqCst);

    let unknown = clients.join_all().await.concat();
    assert_eq!((unknown, &*seen.lost.lock().unwrap()), (Vec::new(), &Vec::new()));
    assert_eq!(app.exit().await.code(), Some(0));
}

/// A service whose `/api/data` takes this long.
async fn with_compute_time(time: &str, settings: &[(&str, &str)]) -> TestApp {
    let mut builder = TestApp::builder().env("DATA_COMPUTE_TIME", time).env("REQUEST_TIMEOUT", "300s");
    for (name, value) in settings {
        builder = builder.env(name, value);
    }
    builder.start().await
}

/// A client that waits for a value of `/api/data`.
async fn waiting_client(app: &TestApp) -> Wire {
    let mut client = Wire::open(&app.url).await.unwrap();
    client.send_get("/api/data/slow", "").await.unwrap();
    app.wait_for_in_flight("the request is there", |count| count >= 1.0).await;
    client
}

#[tokio::test]
async fn a_slow_request_under_way_is_finished() {
    let mut app = with_compute_time("2s", &[]).await;
    let mut client = waiting_client(&app).await;

    app.signal("TERM");
    wait_for_phase(&app, "Stopping").await;

    let answer = client.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.closes(), "{}", answer.head);
    assert_eq!(app.exit().await.code(), Some(0));
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_exit() {
    let mut app = TestApp::builder().env("SHUTDOWN_TIMEOUT", "60s").start().await;
    let mut idle = Wire::open(&app.url).await.unwrap();
    idle.send_get("/api/data/1", "").await.unwrap();
    idle.answer().await.unwrap();
    let _silent = Wire::open(&app.url).await.unwrap();

    app.signal("TERM");

    assert_eq!(exit_within(&mut app, Duration::from_secs(20)).await, Some(0));
}

#[tokio::test]
async fn a_request_that_does_not_end_is_given_up_at_the_deadline() {
    let mut app = with_compute_time("250s", &[("SHUTDOWN_TIMEOUT", "1s")]).await;
    let mut client = waiting_client(&app).await;

    app.signal("TERM");

    assert_eq!(exit_within(&mut app, Duration::from_secs(10)).await, Some(1), "not a clean stop");
    // When there is still time for it, the client is told.
    assert!(client.answer().await.map_or(true, |answer| answer.status == 503));
    app.wait_for_line("a warning", |line| line["message"] == "requests did not end in time").await;
    // Whoever cut it off, it wasn't the client.
    let cut = |line: &Value| line["http.route"] == "/api/data/{id}" && line["http.response.status_code"] == 503;
    app.wait_for_line("the request's line", cut).await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let mut app = with_compute_time("250s", &[("SHUTDOWN_TIMEOUT", "200s")]).await;
    let _client = waiting_client(&app).await;
    app.signal("TERM");
    wait_for_phase(&app, "Stopping").await;

    app.signal("TERM");

    assert_eq!(exit_within(&mut app, Duration::from_secs(10)).await, Some(1));
}

#[tokio::test]
async fn a_second_signal_ends_the_draining_too() {
    let mut app = TestApp::builder().env("DRAIN_DELAY", "100s").env("SHUTDOWN_TIMEOUT", "200s").start().await;
    app.signal("TERM");
    wait_for_phase(&app, "Draining").await;

    app.signal("INT");

    assert_eq!(exit_within(&mut app, Duration::from_secs(10)).await, Some(1));
}

#[tokio::test]
async fn a_service_that_still_waits_for_postgres_stops_at_once() {
    let postgres = OwnPostgres::start().await;
    postgres.server.freeze().unwrap();
    let mut app = postgres.app().without_waiting().start().await;

    app.signal("TERM");

    assert_eq!(exit_within(&mut app, Duration::from_secs(10)).await, Some(0));
}

#[tokio::test]
async fn frozen_servers_do_not_delay_the_exit_beyond_its_deadline() {
    let postgres = OwnPostgres::start().await;
    let builder = postgres.app().env("SHUTDOWN_TIMEOUT", "3s").env("REQUEST_TIMEOUT", "100s");
    let mut app = builder.env("DATABASE_ACQUIRE_TIMEOUT", "100s").start().await;
    postgres.server.freeze().unwrap();
    app.redis.as_ref().unwrap().freeze().unwrap();
    let mut read = Wire::open(&app.url).await.unwrap();
    read.send_get("/api/users/7", "").await.unwrap();
    let mut write = Wire::open(&app.url).await.unwrap();
    write.send_json("PUT", "/api/users/8", r#"{"name":"A","email":"a@example.com"}"#).await.unwrap();
    app.wait_for_in_flight("both requests are there", |count| count >= 2.0).await;

    app.signal("TERM");
    let started = Instant::now();
    app.exit().await;

    // SHUTDOWN_TIMEOUT, 2 s for telemetry, and as much again for a machine that is busy.
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn a_write_whose_client_has_gone_is_finished_before_the_exit() {
    let mut app = TestApp::builder().env("DATABASE_POOL_MIN", "0").env("DATABASE_POOL_MAX", "1").start().await;
    let sql = Sql::connect(&app.database.as_ref().unwrap().url()).await;
    sql.add_users(1).await;
    // The one connection is made on behalf of a request.
    assert_eq!(app.get("/api/users").await.status, 200);
    sql.run("begin; select from users where id = 1 for update").await;
    let mut client = Wire::open(&app.url).await.unwrap();
    let body = json!({"name": "New Name", "email": "user1@example.com"}).to_string();
    client.send_json("PUT", "/api/users/1", &body).await.unwrap();
    sql.wait_for_waiting(1).await;
    client.reset();
    let counted = async || app.answered("/api/users/{id}", 499).await == 1.0;
    wait_until("the reset is counted", LIMIT, counted).await.unwrap();

    app.signal("TERM");
    let refused = async || Wire::open(&app.url).await.is_err();
    wait_until("no connection is taken any more", LIMIT, refused).await.unwrap();
    wait_until("the threads for requests have ended", LIMIT, async || !has_workers(app.pid())).await.unwrap();
    sql.unlock().await;

    assert_eq!(app.exit().await.code(), Some(0));
    assert_eq!(sql.text("select name from users where id = 1").await, "New Name");
    assert_eq!(sql.number("select last_value from row_version").await, 2, "inserted once and updated once");
}

/// Whether the process has threads that answer requests; false where the system can't say.
fn has_workers(process: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    threads.flatten().any(|thread| name(thread).starts_with("actix-server wo"))
}

#[tokio::test]
async fn a_collector_that_never_answers_delays_neither_requests_nor_the_exit() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    for protocol in ["grpc", "http/protobuf"] {
        let builder = TestApp::builder().env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        let mut app = builder.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol).start().await;
        for _ in 0..100 {
            assert_eq!(app.get("/api/data/1").await.status, 200);
        }

        app.signal("TERM");

        assert_eq!(exit_within(&mut app, Duration::from_secs(10)).await, Some(0), "{protocol}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_start_with_a_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut command = program();
    command.env("PORT", port.to_string()).env("BIND_ADDRESS", "127.0.0.1").env("DATABASE_URL", "postgres://127.0.0.1");

    let output = timeout(LIMIT, command.output()).await.expect("the service ends").unwrap();

    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let message = last["message"].as_str().unwrap();
    assert!(message.contains(&format!("can't listen on 127.0.0.1:{port}")) && message.contains("in use"), "{message}");
}
