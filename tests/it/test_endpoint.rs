//! `GET /api/test`.

use serde_json::json;

use crate::support::TestApp;

#[tokio::test]
async fn the_canary_request_reaches_cache_and_database() {
    let app = TestApp::start().await;
    let answer = app.get("/api/test").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"status": "ok", "database": "ok", "cache": "ok"}));
}

#[tokio::test]
async fn without_redis_the_canary_request_says_so() {
    let app = TestApp::builder().without_redis().start().await;
    let answer = app.get("/api/test").await;
    assert_eq!(answer.json(), json!({"status": "ok", "database": "ok", "cache": "disabled"}));
}
