//! `GET /api/users`: keyset pages.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestApp, sql};

async fn app_with_users(count: i64) -> TestApp {
    let app = TestApp::start().await;
    let fill = "insert into users (name, email) select 'User ' || n, n || '@example.com' from generate_series(1, $1::bigint) n";
    sql(&app).await.execute(fill, &[&count]).await.unwrap();
    app
}

fn ids(page: &Value) -> Vec<i64> {
    page["users"].as_array().unwrap().iter().map(|user| user["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn without_users_the_page_is_empty_and_the_last() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/api/users").await.json(), json!({"users": [], "next": null}));
}

#[tokio::test]
async fn a_page_holds_users_as_they_are_and_where_the_next_begins() {
    let app = app_with_users(3).await;
    let page = app.get("/api/users?limit=2").await;
    let users = json!([
        {"id": 1, "name": "User 1", "email": "1@example.com"},
        {"id": 2, "name": "User 2", "email": "2@example.com"},
    ]);
    assert_eq!(page.status, 200);
    assert_eq!(page.json(), json!({"users": users, "next": 2}));
}

#[tokio::test]
async fn a_page_has_20_users_unless_told_and_100_at_most() {
    let app = app_with_users(120).await;
    assert_eq!(ids(&app.get("/api/users").await.json()), (1..=20).collect::<Vec<_>>());
    assert_eq!(ids(&app.get("/api/users?limit=100").await.json()).len(), 100);
    app.get("/api/users?limit=101").await.problem(400);
}

#[tokio::test]
async fn following_next_meets_every_user_once() {
    let app = app_with_users(53).await;
    let (mut met, mut path, mut pages) = (Vec::new(), "/api/users?limit=10".to_owned(), 0);
    loop {
        let page = app.get(&path).await.json();
        met.extend(ids(&page));
        pages += 1;
        let Some(next) = page["next"].as_i64() else { break };
        path = format!("/api/users?limit=10&after={next}");
    }
    assert_eq!((met, pages), ((1..=53).collect(), 6));
}

#[tokio::test]
async fn a_full_last_page_has_no_next() {
    let app = app_with_users(20).await;
    assert_eq!(app.get("/api/users?limit=20").await.json()["next"], Value::Null);
}

#[tokio::test]
async fn a_deleted_user_shifts_no_page() {
    let app = app_with_users(6).await;
    let next = app.get("/api/users?limit=3").await.json()["next"].clone();
    app.delete("/api/users/1").await;
    app.delete("/api/users/3").await;
    let second = app.get(&format!("/api/users?limit=3&after={next}")).await.json();
    assert_eq!(ids(&second), [4, 5, 6]);
}

#[tokio::test]
async fn pages_are_not_cached() {
    let app = app_with_users(1).await;
    app.get("/api/users").await;
    sql(&app).await.execute("update users set name = 'Changed'", &[]).await.unwrap();
    let page = app.get("/api/users").await;
    assert_eq!(page.json()["users"][0]["name"], "Changed");
    assert_eq!((page.header("cache-status"), page.header("etag")), ("", ""));
}

#[tokio::test]
async fn unknown_parameters_are_ignored_and_head_works() {
    let app = app_with_users(1).await;
    assert_eq!(app.get("/api/users?colour=blue&limit=1").await.status, 200);
    let head = app.send(app.request(Method::HEAD, "/api/users")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}
