//! Headers that every answer has.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, TestApp};

fn assert_response_time(answer: &Answer) {
    let text = answer.header("x-response-time");
    let (whole, rest) = text.split_once('.').unwrap_or_else(|| panic!("X-Response-Time: {text:?}"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let well_formed = !whole.is_empty() && digits(whole) && rest.len() == 4 && digits(&rest[..2]) && &rest[2..] == "ms";
    assert!(well_formed, "X-Response-Time: {text:?}");
}

#[tokio::test]
async fn every_answer_has_its_time_and_a_request_id() {
    let app = TestApp::start().await;
    app.get("/api/data/a").await;
    let etag = app.get("/api/data/a").await.header("etag").to_owned();
    let unchanged = app.send(app.request(Method::GET, "/api/data/a").header("if-none-match", etag)).await;
    assert_eq!(unchanged.status, 304);
    let answers = [
        unchanged,
        app.get("/api/test").await,
        app.get("/api/users/x").await,
        app.get("/api/users/999").await,
        app.get("/nothing/here").await,
        app.get("/health/live").await,
        app.get("/metrics").await,
        app.get("/docs/").await,
        app.delete("/api/test").await,
        app.write(Method::POST, "/api/users", &json!([])).await,
        app.send(app.request(Method::HEAD, "/api/test")).await,
        app.send(app.request(Method::POST, "/api/users")).await,
    ];
    for answer in answers {
        assert_response_time(&answer);
        assert_eq!(answer.header("x-request-id").len(), 32, "{} {}", answer.status, answer.text);
    }
}

#[tokio::test]
async fn the_time_is_in_milliseconds_and_has_the_handlers_in_it() {
    let app = TestApp::builder().env("DATA_COMPUTE_TIME", "150ms").start().await;
    let answer = app.get("/api/data/slow").await;
    let millis: f64 = answer.header("x-response-time").trim_end_matches("ms").parse().unwrap();
    assert!((150.0..30_000.0).contains(&millis), "{millis}");
}

#[tokio::test]
async fn a_well_formed_request_id_is_echoed() {
    let app = TestApp::start().await;
    let longest = "x".repeat(128);
    for id in ["a", "Order-7_b.9", &longest] {
        for path in ["/api/test", "/nothing"] {
            let answer = app.send(app.request(Method::GET, path).header("x-request-id", id)).await;
            assert_eq!(answer.header("x-request-id"), id);
        }
    }
}

#[tokio::test]
async fn any_other_request_id_is_replaced() {
    let app = TestApp::start().await;
    let too_long = "x".repeat(129);
    for id in ["", "a b", "a\"b", "<script>", "a/b", "ü", &too_long] {
        let answer = app.send(app.request(Method::GET, "/api/test").header("x-request-id", id)).await;
        let drawn = answer.header("x-request-id");
        assert!(drawn.len() == 32 && drawn.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?} became {drawn:?}");
    }
}

#[tokio::test]
async fn drawn_request_ids_differ() {
    let app = TestApp::start().await;
    let first = app.get("/api/test").await;
    let second = app.get("/api/test").await;
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}
