//! `/log-filter`.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, TestApp};

const PATH: &str = "/log-filter";

async fn filter(app: &TestApp) -> Answer {
    app.get(PATH).await
}

/// Whether the service now writes what only `debug` shows.
async fn is_verbose(app: &TestApp, id: &str) -> bool {
    app.get("/api/data/a").await;
    let answer = app.send(app.request(Method::GET, "/api/data/a").header("x-request-id", id)).await;
    assert_eq!(answer.status, 200);
    app.wait_for_line("the request", |line| line["request_id"] == id && line["message"] == "request").await;
    app.log().iter().any(|line| line["request_id"] == id && line["message"] == "cache_hit")
}

#[tokio::test]
async fn levels_change_for_a_while_and_go_back_by_themselves() {
    let app = TestApp::start().await;
    assert!(!is_verbose(&app, "before").await);
    let answer = app.write(Method::PUT, PATH, &json!({"filter": "tiered_cache=debug,info", "for": "1h"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(is_verbose(&app, "meanwhile").await);
    assert!(filter(&app).await.json()["filter"].as_str().unwrap().contains("tiered_cache=debug"));
    app.write(Method::PUT, PATH, &json!({"filter": "tiered_cache=debug,info", "for": "1s"})).await;
    app.wait_for_line("the end", |line| line["event.name"] == "log_filter.restored").await;
    assert!(!is_verbose(&app, "after").await);
}

#[tokio::test]
async fn a_delete_goes_back_at_once_and_a_second_change_replaces_the_first() {
    let app = TestApp::start().await;
    app.write(Method::PUT, PATH, &json!({"filter": "debug", "for": "1s"})).await;
    app.write(Method::PUT, PATH, &json!({"filter": "tiered_cache=debug,info", "for": "1h"})).await;
    let third = json!({"filter": "tiered_cache=debug,warn", "for": "1s"});
    assert_eq!(app.write(Method::PUT, PATH, &third).await.status, 200);
    assert_eq!(app.delete(PATH).await.json()["filter"], "actix_server=warn,info");
    assert!(!is_verbose(&app, "after").await);
}

#[tokio::test]
async fn a_wrong_wish_is_refused_and_changes_nothing() {
    let app = TestApp::start().await;
    let before = filter(&app).await.json();
    for body in
        [json!({"filter": "info=loud", "for": "1m"}), json!({"filter": "debug", "for": "2h"}), json!({"filter": 1})]
    {
        app.write(Method::PUT, PATH, &body).await.problem(422);
    }
    app.send(app.request(Method::PUT, PATH).json(&json!({"filter": "debug", "for": "1m"}))).await.problem(401);
    assert_eq!(filter(&app).await.json(), before);
}
