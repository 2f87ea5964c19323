//! Bodies: what is refused about them, and how.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Connection, TOKEN, TestApp, documents, refused, write};

/// The operations that take a body, with a path to try each.
fn with_body() -> [(&'static str, Method, &'static str); 3] {
    [
        ("POST /api/users", Method::POST, "/api/users"),
        ("PUT /api/users/{id}", Method::PUT, "/api/users/1"),
        ("PUT /api/cache/{key}", Method::PUT, "/api/cache/a"),
    ]
}

#[tokio::test]
async fn a_body_that_is_not_json_is_400() {
    let app = TestApp::start().await;
    for (operation, method, path) in with_body() {
        for body in ["", "{", "{\"name\":}", "{} x", "\u{feff}{}", "{\"a\":1e999}", "\"\\ud800\"", "nul"] {
            refused(&app, operation, write(&app, method.clone(), path, body), 400).await;
        }
        let not_utf8 = write(&app, method, path, b"\"\xff\"".to_vec());
        refused(&app, operation, not_utf8, 400).await;
    }
}

#[tokio::test]
async fn the_token_comes_before_the_body() {
    let app = TestApp::start().await;
    for (operation, method, path) in with_body() {
        refused(&app, operation, app.request(method, path).body("not JSON"), 401).await;
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_413() {
    let app = TestApp::builder().env("BODY_LIMIT", "1KiB").start().await;
    let body_of = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    for (operation, method, path) in with_body() {
        refused(&app, operation, write(&app, method, path, body_of(1025)), 413).await;
    }
    let largest = write(&app, Method::PUT, "/api/cache/a", body_of(1024));
    assert_eq!(app.send(largest).await.status, 200, "exactly the limit is allowed");
}

#[tokio::test]
async fn a_body_in_chunks_above_the_limit_is_413() {
    let app = TestApp::builder().env("BODY_LIMIT", "1KiB").start().await;
    for (operation, method, path) in with_body() {
        let mut connection = Connection::open(&app).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        connection.send(head).await;
        for _ in 0..3 {
            connection.send(format!("200\r\n{}\r\n", "x".repeat(512))).await;
        }
        connection.send("0\r\n\r\n").await;
        let answer = connection.receive(method.as_str()).await;
        assert_eq!((answer.status, answer.header("content-type")), (413, "application/problem+json"));
        assert_eq!(answer.json()["status"], 413);
        assert_eq!(answer.json()["instance"], path);
        assert!(documents(operation, 413));
    }
}

#[tokio::test]
async fn a_body_that_is_not_called_json_is_415() {
    let app = TestApp::start().await;
    for (operation, method, path) in with_body() {
        let request = || app.request(method.clone(), path).bearer_auth(TOKEN).body("{}");
        refused(&app, operation, request(), 415).await;
        for kind in ["", "text/plain", "application/jsonx", "application/x-www-form-urlencoded", "json"] {
            refused(&app, operation, request().header("content-type", kind), 415).await;
        }
    }
}

#[tokio::test]
async fn json_by_other_names_is_accepted() {
    let app = TestApp::start().await;
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"] {
        let request = app.request(Method::PUT, "/api/cache/a").bearer_auth(TOKEN).header("content-type", kind);
        assert_eq!(app.send(request.body("1")).await.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn invalid_fields_are_422_and_listed_all_at_once() {
    let app = TestApp::start().await;
    let too_long = "x".repeat(201);
    let cases: [(Value, Value); 7] = [
        (json!({}), json!([{"field": "name", "detail": "is required"}, {"field": "email", "detail": "is required"}])),
        (
            json!({"name": 7, "email": ["a@b.c"]}),
            json!([{"field": "name", "detail": "must be a string"}, {"field": "email", "detail": "must be a string"}]),
        ),
        (
            json!({"name": " ", "email": "nobody"}),
            json!([
                {"field": "name", "detail": "must not be empty"},
                {"field": "email", "detail": "must be an e-mail address"}
            ]),
        ),
        (
            json!({"name": too_long, "email": "a@b.c"}),
            json!([{"field": "name", "detail": "must have at most 200 characters"}]),
        ),
        (
            json!({"name": "a\u{0}b", "email": null}),
            json!([
                {"field": "name", "detail": "must not hold control characters"},
                {"field": "email", "detail": "is required"}
            ]),
        ),
        (json!([1]), json!([{"field": "", "detail": "the body must be an object"}])),
        (json!(null), json!([{"field": "", "detail": "the body must be an object"}])),
    ];
    for (body, errors) in cases {
        for (operation, method, path) in &with_body()[..2] {
            let answer = refused(&app, operation, write(&app, method.clone(), path, body.to_string()), 422).await;
            assert_eq!(answer.json()["errors"], errors, "{body}");
        }
    }
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_504() {
    let app = TestApp::builder().env("REQUEST_TIMEOUT", "300ms").start().await;
    for (operation, method, path) in with_body() {
        let mut connection = Connection::open(&app).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
        );
        connection.send(head).await;
        let answer = connection.receive(method.as_str()).await;
        assert_eq!((answer.status, answer.header("content-type")), (504, "application/problem+json"));
        assert!(documents(operation, 504));
    }
}
