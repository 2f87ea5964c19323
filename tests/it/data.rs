//! `/api/data/{id}`.

use devkit::wait_until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LIMIT, TestApp, replicas};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Digits after the point of a number in a JSON text.
fn decimals(text: &str, field: &str) -> usize {
    let number = text.split(&format!("\"{field}\":")).nth(1).unwrap();
    let number = number.split([',', '}']).next().unwrap();
    number.split_once('.').map_or(0, |(_, digits)| digits.len())
}

#[tokio::test]
async fn a_value_is_computed_once_and_says_when() {
    let app = TestApp::start().await;
    let first = app.get("/api/data/report-7").await;
    let second = app.get("/api/data/report-7").await;
    assert_eq!((first.status.as_u16(), first.header("content-type")), (200, "application/json"));
    let (loaded, cached) = (first.json(), second.json());
    assert_eq!(keys(&loaded), ["cached", "data", "timestamp"]);
    assert_eq!(keys(&loaded["data"]), ["computed_at", "id", "value"]);
    assert_eq!(loaded["data"]["id"], "report-7");
    assert_eq!(loaded["data"]["value"], "computed_value_report-7");
    assert_eq!((&loaded["cached"], &cached["cached"]), (&json!(false), &json!(true)));
    assert_eq!(loaded["data"], cached["data"]);
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&loaded["data"]["computed_at"]) <= number(&loaded["timestamp"]));
    assert!(number(&loaded["timestamp"]) < number(&cached["timestamp"]), "the time of the answer, not of the load");
    assert!(number(&loaded["timestamp"]) > 1.7e9, "seconds since the epoch");
}

#[tokio::test]
async fn times_have_microseconds() {
    let app = TestApp::start().await;
    let text = app.get("/api/data/a").await.text;
    assert_eq!(decimals(&text, "timestamp"), 6, "{text}");
    // A time may end in zeros, which JSON numbers lose; several times in a row don't.
    let mut longest = 0;
    for id in ["b", "c", "d", "e", "f", "g"] {
        longest = longest.max(decimals(&app.get(&format!("/api/data/{id}")).await.text, "computed_at"));
    }
    assert!((5..=6).contains(&longest), "{longest} digits after the point");
}

#[tokio::test]
async fn an_etag_is_weak_and_holds_until_the_value_is_computed_anew() {
    let app = TestApp::start().await;
    let first = app.get("/api/data/a").await;
    let etag = first.header("etag").to_owned();
    assert!(etag.starts_with("W/\""), "{etag}");
    let ask = || app.request(Method::GET, "/api/data/a").header("if-none-match", &etag);
    let unchanged = app.send(ask()).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.text.as_str()), (304, ""));
    app.delete("/api/data/a").await;
    let anew = app.send(ask()).await;
    assert_eq!(anew.status, 200);
    assert_ne!(anew.header("etag"), etag);
}

#[tokio::test]
async fn a_forgotten_value_is_computed_anew() {
    let app = TestApp::start().await;
    let before = app.get("/api/data/a").await.json();
    let answer = app.delete("/api/data/a").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    let after = app.get("/api/data/a").await.json();
    assert_eq!(after["cached"], false);
    assert!(after["data"]["computed_at"].as_f64() > before["data"]["computed_at"].as_f64());
}

#[tokio::test]
async fn a_value_is_forgotten_on_every_replica() {
    let (app, other) = replicas().await;
    let before = app.get("/api/data/a").await.json()["data"].clone();
    assert_eq!(other.get("/api/data/a").await.json()["data"], before, "Redis carries it over");
    app.delete("/api/data/a").await;
    let forgotten = async || other.get("/api/data/a").await.json()["data"] != before;
    wait_until("the other replica has forgotten it", LIMIT, forgotten).await.unwrap();
}

#[tokio::test]
async fn cache_status_tells_a_load_from_a_hit_also_without_redis() {
    let app = TestApp::builder().without_redis().start().await;
    let loaded = app.get("/api/data/a").await;
    let hit = app.get("/api/data/a").await;
    assert!(loaded.header("cache-status").starts_with("plinth; fwd=uri-miss; stored"), "{:?}", loaded.headers);
    assert!(hit.header("cache-status").starts_with("plinth; hit"), "{:?}", hit.headers);
}

#[tokio::test]
async fn ids_have_letters_digits_and_a_few_signs() {
    let app = TestApp::start().await;
    let longest = "x".repeat(64);
    for id in ["a", "A-b_c.9", &longest] {
        assert_eq!(app.get(&format!("/api/data/{id}")).await.json()["data"]["id"], *id);
    }
}
