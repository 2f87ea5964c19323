//! `/api/cache/{key}`.

use devkit::wait_until;
use redis::AsyncCommands;
use reqwest::Method;
use serde_json::json;

use crate::support::{LIMIT, TOKEN, TestApp, redis};

#[tokio::test]
async fn a_stored_value_is_answered_until_it_is_deleted() {
    let app = TestApp::start().await;
    let value = json!({"a": [1, 2.5, null], "b": "ü"});
    let stored = app.write(Method::PUT, "/api/cache/my:key", &value).await;
    assert_eq!(stored.status, 200, "{}", stored.text);
    assert_eq!(stored.json(), json!({"key": "my:key", "value": value}));
    let read = app.get("/api/cache/my:key").await;
    assert_eq!((read.status.as_u16(), read.header("content-type")), (200, "application/json"));
    assert_eq!(read.json(), json!({"key": "my:key", "value": value}));
    assert_eq!(read.header("cache-status"), "plinth; hit; detail=l2");
    let deleted = app.delete("/api/cache/my:key").await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    assert_eq!(app.get("/api/cache/my:key").await.problem(404)["detail"], "Key not found");
}

#[tokio::test]
async fn any_json_is_a_value_and_comes_back_as_it_was_sent() {
    let app = TestApp::start().await;
    for value in ["null", "true", "1.50", "12345678901234567890123", "\"text\"", "[]", "{ \"b\":1, \"a\":2 }"] {
        let request = app.request(Method::PUT, "/api/cache/any").bearer_auth(TOKEN);
        let stored = app.send(request.header("content-type", "application/json").body(value)).await;
        assert_eq!(stored.status, 200, "{value}: {}", stored.text);
        let read = app.get("/api/cache/any").await;
        assert_eq!(read.text, format!("{{\"key\":\"any\",\"value\":{value}}}"));
    }
}

#[tokio::test]
async fn a_value_lives_as_long_as_asked_for() {
    let app = TestApp::builder().env("CACHE_L2_TTL", "1234s").start().await;
    app.write(Method::PUT, "/api/cache/default", &json!(1)).await;
    app.write(Method::PUT, "/api/cache/long?ttl=2592000", &json!(1)).await;
    app.write(Method::PUT, "/api/cache/short?ttl=1", &json!(1)).await;
    let mut redis = redis(&app).await;
    let default: i64 = redis.ttl("plinth:value:default").await.unwrap();
    let long: i64 = redis.ttl("plinth:value:long").await.unwrap();
    assert!((1200..=1234).contains(&default) && long > 2_591_900, "{default} {long}");
    let gone = async || app.get("/api/cache/short").await.status == 404;
    wait_until("a second is over", LIMIT, gone).await.unwrap();
}

#[tokio::test]
async fn only_keys_of_this_space_can_be_reached() {
    let app = TestApp::start().await;
    let mut redis = redis(&app).await;
    let () = redis.set("foreign", "\"theirs\"").await.unwrap();
    app.get("/api/cache/foreign").await.problem(404);
    assert_eq!(app.write(Method::PUT, "/api/cache/foreign", &json!("mine")).await.status, 200);
    assert_eq!(app.delete("/api/cache/foreign").await.status, 204);
    let kept: String = redis.get("foreign").await.unwrap();
    assert_eq!(kept, "\"theirs\"");
}

#[tokio::test]
async fn what_is_cached_for_other_endpoints_cannot_be_reached() {
    let app = TestApp::start().await;
    app.get("/api/data/a").await;
    let keys: Vec<String> = redis(&app).await.keys("*").await.unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        let short = key.strip_prefix("plinth:").unwrap_or(&key);
        for path in [&key, short] {
            let status = app.get(&format!("/api/cache/{path}")).await.status;
            assert!(status == 404 || status == 400, "{path}: {status}");
        }
    }
}

#[tokio::test]
async fn deleting_what_is_not_there_is_fine() {
    let app = TestApp::start().await;
    assert_eq!(app.delete("/api/cache/nothing").await.status, 204);
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let app = TestApp::start().await;
    app.write(Method::PUT, "/api/cache/a", &json!(1)).await;
    let head = app.send(app.request(Method::HEAD, "/api/cache/a")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), app.get("/api/cache/a").await.header("content-length"));
}

#[tokio::test]
async fn what_somebody_else_stored_is_a_problem_of_that_key_alone_and_can_be_replaced() {
    let app = TestApp::start().await;
    app.write(Method::PUT, "/api/cache/well", &json!(1)).await;
    let mut redis = redis(&app).await;
    let () = redis.set("plinth:value:text", "{oops").await.unwrap();
    let () = redis.set("plinth:value:bytes", b"\"\xff\xfe\"").await.unwrap();
    let () = redis.lpush("plinth:value:list", 1).await.unwrap();
    for _ in 0..20 {
        for key in ["text", "bytes", "list"] {
            let problem = app.get(&format!("/api/cache/{key}")).await.problem(409);
            assert_eq!(problem["detail"], "Redis holds something under this key that is no JSON value.");
        }
        assert_eq!(app.get("/api/cache/well").await.status, 200);
    }
    assert_eq!(app.get("/health").await.json()["status"], "healthy");
    for key in ["text", "bytes", "list"] {
        let path = format!("/api/cache/{key}");
        assert_eq!(app.write(Method::PUT, &path, &json!(2)).await.status, 200);
        assert_eq!(app.get(&path).await.json()["value"], 2);
    }
}
