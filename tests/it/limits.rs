//! Requests per client, and requests at once.

use devkit::wait_until;
use reqwest::Method;

use crate::support::{Connection, LIMIT, TOKEN, TestApp, documents, operations};

#[tokio::test]
async fn beyond_its_rate_a_client_gets_429_and_when_to_come_back() {
    let app = TestApp::builder().env("RATE_LIMIT", "3/m").start().await;
    for _ in 0..3 {
        assert_eq!(app.get("/api/test").await.status, 200);
    }
    let answer = app.get("/api/test").await;
    let problem = answer.problem(429);
    assert_eq!(problem["instance"], "/api/test");
    let wait: u32 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    for operation in operations().iter().filter(|operation| operation.path.starts_with("/api/")) {
        assert!(documents(&format!("{} {}", operation.method, operation.path), 429), "{operation:?}");
    }
}

#[tokio::test]
async fn a_refused_write_counts_towards_the_rate() {
    let app = TestApp::builder().env("RATE_LIMIT", "2/m").start().await;
    for _ in 0..2 {
        app.send(app.request(Method::POST, "/api/users").bearer_auth("guess")).await.problem(401);
    }
    app.send(app.request(Method::POST, "/api/users").bearer_auth("guess")).await.problem(429);
}

#[tokio::test]
async fn tokens_cannot_be_tried_at_will_where_operators_set_things() {
    let app = TestApp::builder().env("RATE_LIMIT", "3/m").start().await;
    let guess = async |method: Method| app.send(app.request(method, "/log-filter").bearer_auth("guess")).await;
    guess(Method::PUT).await.problem(401);
    guess(Method::DELETE).await.problem(401);
    guess(Method::PUT).await.problem(401);
    guess(Method::PUT).await.problem(429);
    guess(Method::DELETE).await.problem(429);
    for path in ["/health", "/metrics", "/log-filter"] {
        assert_eq!(app.get(path).await.status, 200, "{path} needs no token");
    }
    for operation in ["PUT /log-filter", "DELETE /log-filter"] {
        assert!(documents(operation, 429) && documents(operation, 504), "{operation}");
    }
}

#[tokio::test]
async fn an_operation_of_the_management_side_has_a_deadline() {
    let app = TestApp::builder().env("REQUEST_TIMEOUT", "300ms").start().await;
    let mut silent = Connection::open(&app).await;
    let head = format!(
        "PUT /log-filter HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n"
    );
    silent.send(&head).await;
    assert_eq!(silent.receive("PUT").await.status, 504);
}

#[tokio::test]
async fn probes_and_metrics_have_no_rate() {
    let app = TestApp::builder().env("RATE_LIMIT", "1/m").start().await;
    for _ in 0..5 {
        for path in ["/health", "/health/live", "/health/ready", "/metrics"] {
            assert_eq!(app.get(path).await.status, 200);
        }
    }
    assert_eq!(app.get("/api/test").await.status, 200);
    app.get("/api/test").await.problem(429);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_rate() {
    let app = TestApp::builder().env("RATE_LIMIT", "1/m").env("TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let from = async |client: &str| {
        let request = app.request(Method::GET, "/api/test").header("x-forwarded-for", client);
        app.send(request).await.status.as_u16()
    };
    assert_eq!((from("192.0.2.1").await, from("192.0.2.1").await, from("192.0.2.2").await), (200, 429, 200));
}

#[tokio::test]
async fn nobody_escapes_the_rate_by_claiming_another_address() {
    let app = TestApp::builder().env("RATE_LIMIT", "1/m").start().await;
    let from = async |client: &str| {
        let request = app.request(Method::GET, "/api/test").header("x-forwarded-for", client);
        app.send(request.header("forwarded", format!("for={client}"))).await.status.as_u16()
    };
    assert_eq!((from("192.0.2.1").await, from("192.0.2.2").await), (200, 429));
}

#[tokio::test]
async fn beyond_max_in_flight_requests_are_503_until_one_ends() {
    let app = TestApp::builder().env("MAX_IN_FLIGHT", "1").start().await;
    let body = r#"{"name":"Ada","email":"ada@example.com"}"#;
    let head = format!(
        "POST /api/users HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut held = Connection::open(&app).await;
    held.send(&head).await;
    // Asking for anything else could take the place away from the one to be held.
    let held_is_in = async || app.metric("http_requests_in_flight").await == Some(1.0);
    wait_until("the only place is taken", LIMIT, held_is_in).await.unwrap();
    let answer = app.get("/api/test").await;
    let problem = answer.problem(503);
    assert!(problem["type"].as_str().unwrap().ends_with("/overloaded"), "{problem}");
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1));
    assert_eq!(app.get("/health/live").await.status, 200, "probes need no place");
    for operation in operations().iter().filter(|operation| operation.path.starts_with("/api/")) {
        assert!(documents(&format!("{} {}", operation.method, operation.path), 503), "{operation:?}");
    }

    held.send(body).await;
    assert_eq!(held.receive("POST").await.status, 201);
    assert_eq!(app.get("/api/test").await.status, 200);
}

#[tokio::test]
async fn paths_that_nothing_is_at_are_limited_too() {
    let app = TestApp::builder().env("RATE_LIMIT", "2/m").start().await;
    app.get("/nothing").await.problem(404);
    app.get("/nowhere").await.problem(404);
    app.get("/nobody").await.problem(429);
}
