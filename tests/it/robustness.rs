//! What anybody can send to an open port.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use devkit::{FaultProxy, wait_until};
use socket2::{Domain, Socket, Type};
use tokio::time::timeout;

use crate::support::{LIMIT, Sql, TestApp, Wire};

/// Asserts that the service is as well as before.
async fn assert_well(app: &TestApp) {
    assert_eq!(app.get("/api/data/well").await.status, 200);
    assert_eq!(app.sum("panics_total", &[]).await, 0.0);
    app.wait_for_in_flight("none is left", |count| count == 0.0).await;
}

#[tokio::test]
async fn malformed_requests_are_refused_and_their_connections_closed() {
    let app = TestApp::start().await;
    let long = "x".repeat(300_000);
    for bytes in [
        "\0\u{1}\u{2}garbage\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n".to_owned(),
        "POST /api/users HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "POST /api/users HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let mut client = Wire::open(&app.url).await.unwrap();
        // The service may answer and close before it has read all.
        let _ = client.send(&bytes).await;
        let shown = &bytes[..bytes.len().min(60)];
        match timeout(LIMIT, client.answer()).await.expect(shown) {
            Ok(answer) => assert!((400..600).contains(&answer.status), "{shown:?}: {answer:?}"),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::InvalidData, "{shown:?}"),
        }
        timeout(LIMIT, client.ended()).await.expect(shown);
    }
    assert_well(&app).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = TestApp::start().await;
    let mut client = Wire::open(&app.url).await.unwrap();
    let request = |id: i32| format!("GET /api/data/{id} HTTP/1.1\r\nHost: a\r\n\r\n");

    client.send((0..20).map(request).collect::<String>()).await.unwrap();

    for id in 0..20 {
        let answer = timeout(LIMIT, client.answer()).await.expect("an answer").unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(&format!("\"computed_value_{id}\"")), "{id}: {}", answer.body);
    }
    assert_well(&app).await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let app = TestApp::start().await;
    let mut client = Wire::open(&app.url).await.unwrap();
    client.send("GET /api/data/1 HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let slowly = async {
        while client.send("X-Slow: 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, slowly).await.expect("the service closes the connection");
    assert_well(&app).await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let app = TestApp::builder().env("REQUEST_TIMEOUT", "1s").start().await;
    let mut client = Wire::open(&app.url).await.unwrap();
    let head = format!("PUT /api/users/1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n", crate::support::TOKEN);
    client.send(format!("{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{")).await.unwrap();

    let answer = timeout(LIMIT, client.answer()).await.expect("an answer").unwrap();

    assert_eq!(answer.status, 504);
    timeout(LIMIT, client.ended()).await.expect("the connection is closed");
    assert_well(&app).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_nobody() {
    let app = TestApp::start().await;
    let mut deaf = Wire::open(&app.url).await.unwrap();
    let request = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200);
    // The answers fill every buffer on the way, so that not even all of the requests are taken.
    let _ = timeout(Duration::from_secs(1), deaf.send(&request)).await;

    for id in 0..20 {
        assert_eq!(app.get(&format!("/api/data/{id}")).await.status, 200);
    }
    deaf.reset();
    assert_well(&app).await;
}

#[tokio::test]
async fn clients_that_read_nothing_of_a_large_file_take_little_memory() {
    const CLIENTS: usize = 200;
    let app = TestApp::start().await;
    let file = "/docs/swagger-ui-bundle.js";
    assert!(app.get(file).await.text.len() > 400_000);
    let resident = async || app.sum("process_resident_memory_bytes", &[]).await;
    let before = resident().await;

    let address: SocketAddr = app.url.trim_start_matches("http://").parse().unwrap();
    let mut deaf = Vec::new();
    for _ in 0..CLIENTS {
        let mut socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Else the kernel takes all of it.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_tcp_mss(536).unwrap();
        socket.connect(&address.into()).unwrap();
        socket.write_all(format!("GET {file} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        deaf.push(socket);
    }
    let begun = async || app.answered("/docs/{file:.*}", 200).await == CLIENTS as f64 + 1.0;
    wait_until("every answer has begun", LIMIT, begun).await.unwrap();

    // The file has 400 kB.
    let grown = (resident().await - before) / CLIENTS as f64;
    assert!(grown < 150_000.0, "{grown} bytes for each client");
    drop(deaf);
    assert_well(&app).await;
}

#[tokio::test]
async fn a_panic_is_counted_wherever_it_is_caught() {
    let app = TestApp::start().await;
    let sql = Sql::connect(&app.database.as_ref().unwrap().url()).await;
    sql.add_users(1).await;
    // A type that no migration made: reading it panics, in a task of the cache.
    sql.run("alter table users alter column name type bytea using name::bytea").await;

    assert_eq!(app.get("/api/users/1").await.status, 500);

    assert_eq!(app.sum("panics_total", &[]).await, 1.0);
}

#[tokio::test]
async fn the_metrics_of_the_runtime_are_those_of_the_one_that_works_in_the_background() {
    let app = TestApp::start().await;
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(app.sum("tokio_workers", &[]).await, cores as f64);
}

#[tokio::test]
async fn idle_connections_keep_no_new_ones_out() {
    let app = TestApp::start().await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(Wire::open(&app.url).await.unwrap());
    }

    for id in 0..20 {
        let mut new = Wire::open(&app.url).await.unwrap();
        new.send_get(&format!("/api/data/{id}"), "").await.unwrap();
        let answer = timeout(LIMIT, new.answer()).await.expect("an answer").unwrap();
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn a_balancer_in_between_that_goes_away_leaves_nothing_behind() {
    let app = TestApp::builder().env("DATA_COMPUTE_TIME", "2s").start().await;
    let target = app.url.trim_start_matches("http://").parse().unwrap();
    let proxy = FaultProxy::start(target).await.unwrap();
    let through = format!("http://{}", proxy.addr());
    let mut clients = Vec::new();
    for id in 0..20 {
        let mut client = Wire::open(&through).await.unwrap();
        client.send_get(&format!("/api/data/{id}"), "").await.unwrap();
        clients.push(client);
    }
    app.wait_for_in_flight("all requests are there", |count| count >= 20.0).await;

    proxy.cut();

    app.wait_for_in_flight("none is left", |count| count == 0.0).await;
    assert_eq!(app.answered("/api/data/{id}", 499).await, 20.0);
}
