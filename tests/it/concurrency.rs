//! Many requests at once, and clients that go away in the middle.

use devkit::wait_until;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::{LIMIT, Sql, TestApp, Wire};

/// A service with this many users, and a session beside it.
async fn with_users(count: i64) -> (TestApp, Sql) {
    let app = TestApp::builder().env("REQUEST_TIMEOUT", "60s").start().await;
    let sql = Sql::connect(&app.database.as_ref().unwrap().url()).await;
    sql.add_users(count).await;
    // It would load again what it hears of while it loads.
    app.wait_until_heard().await;
    (app, sql)
}

/// A service that takes this long for a value of `/api/data`.
async fn with_compute_time(time: &str) -> TestApp {
    TestApp::builder().env("DATA_COMPUTE_TIME", time).env("REQUEST_TIMEOUT", "60s").start().await
}

/// Sends a request for each id over a connection of its own, all before the first is read.
async fn ask_at_once(app: &TestApp, ids: impl Iterator<Item = i64>) -> Vec<Wire> {
    let mut clients = Vec::new();
    for id in ids {
        let mut client = Wire::open(&app.url).await.unwrap();
        client.send_get(&format!("/api/users/{id}"), "").await.unwrap();
        clients.push(client);
    }
    clients
}

async fn assert_all_answered(clients: Vec<Wire>) {
    for mut client in clients {
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_thousand_requests_for_one_cold_user_cause_one_query() {
    let (app, sql) = with_users(1).await;
    sql.lock_users().await;
    let clients = ask_at_once(&app, std::iter::repeat_n(1, 1000)).await;
    app.wait_for_in_flight("all requests are there", |count| count == 1000.0).await;
    sql.wait_for_waiting(1).await;

    sql.unlock().await;

    assert_all_answered(clients).await;
    assert_eq!(app.queries("user").await, 1.0);
}

#[tokio::test]
async fn a_thousand_requests_for_one_cold_user_over_three_replicas_cause_one_query() {
    let (one, sql) = with_users(1).await;
    let beside = || TestApp::builder().env("REQUEST_TIMEOUT", "60s").beside(&one).start();
    let (two, three) = (beside().await, beside().await);
    let replicas = [(&one, 334), (&two, 333), (&three, 333)];
    sql.lock_users().await;
    let mut clients = Vec::new();
    for (app, count) in replicas {
        clients.extend(ask_at_once(app, std::iter::repeat_n(1, count)).await);
    }
    for (app, count) in replicas {
        app.wait_for_in_flight("all requests are there", |there| there == count as f64).await;
    }
    sql.wait_for_waiting(1).await;

    sql.unlock().await;

    assert_eq!(clients.len(), 1000);
    assert_all_answered(clients).await;
    let mut queries = 0.0;
    for (app, _) in replicas {
        queries += app.queries("user").await;
    }
    assert_eq!(queries, 1.0);
}

#[tokio::test]
async fn every_one_of_many_cold_users_is_loaded_once() {
    let (app, _sql) = with_users(50).await;

    assert_all_answered(ask_at_once(&app, (0..1000).map(|n| 1 + n % 50)).await).await;

    assert_eq!(app.queries("user").await, 50.0);
}

#[tokio::test]
async fn a_client_that_resets_in_mid_load_changes_nothing_for_the_others() {
    let app = with_compute_time("4s").await;
    let mut first = Wire::open(&app.url).await.unwrap();
    first.send_get("/api/data/7", "").await.unwrap();
    app.wait_for_in_flight("the first request is there", |count| count >= 1.0).await;
    let others = async { join_all((0..20).map(|_| app.get("/api/data/7"))).await };
    let meanwhile = async {
        app.wait_for_in_flight("the others are there", |count| count >= 21.0).await;
        first.reset();
        let counted = async || app.answered("/api/data/{id}", 499).await == 1.0;
        wait_until("the reset is counted", LIMIT, counted).await.unwrap();
        app.answered("/api/data/{id}", 200).await
    };

    let (answers, answered_before) = tokio::join!(others, meanwhile);

    assert_eq!(answered_before, 0.0, "the client was to go away before the load was done");
    let loads: Vec<_> = answers.iter().map(|answer| answer.json()["data"]["computed_at"].to_string()).collect();
    assert!(loads.iter().all(|load| *load == loads[0]), "more than one load: {loads:?}");
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(app.sum("cache_load_seconds_count", &[r#"cache="data""#]).await, 1.0);
}

#[tokio::test]
async fn a_load_whose_every_client_has_gone_fills_the_cache() {
    let app = with_compute_time("1s").await;
    let mut client = Wire::open(&app.url).await.unwrap();
    client.send_get("/api/data/7", "").await.unwrap();
    app.wait_for_in_flight("the request is there", |count| count >= 1.0).await;
    client.reset();
    let gone = async || app.answered("/api/data/{id}", 499).await == 1.0;
    wait_until("the reset is counted", LIMIT, gone).await.unwrap();

    let kept = [r#"cache="data""#, r#"tier="l1""#, r#"result="stored""#];
    wait_until("the value is kept", LIMIT, async || app.sum("cache_fill_total", &kept).await == 1.0).await.unwrap();

    assert_eq!(app.get("/api/data/7").await.json()["cached"], true);
}

#[tokio::test]
async fn the_number_of_requests_in_flight_returns_to_zero() {
    let app = with_compute_time("2s").await;
    let mut clients = Vec::new();
    for id in 0..50 {
        let mut client = Wire::open(&app.url).await.unwrap();
        client.send_get(&format!("/api/data/{id}"), "").await.unwrap();
        clients.push(client);
    }
    app.wait_for_in_flight("all requests are there", |count| count >= 50.0).await;

    let (leaving, staying) = (clients.split_off(25), clients);
    leaving.into_iter().for_each(Wire::reset);
    for mut client in staying {
        assert_eq!(client.answer().await.unwrap().status, 200);
    }

    app.wait_for_in_flight("none is left", |count| count == 0.0).await;
    assert_eq!(app.answered("/api/data/{id}", 499).await, 25.0);
}

#[tokio::test]
async fn a_write_whose_client_resets_is_carried_out_and_invalidates() {
    let (app, sql) = with_users(1).await;
    assert_eq!(app.get("/api/users/1").await.status, 200);
    sql.run("begin; select from users where id = 1 for update").await;
    let mut client = Wire::open(&app.url).await.unwrap();
    let body = json!({"name": "New Name", "email": "user1@example.com"}).to_string();
    client.send_json("PUT", "/api/users/1", &body).await.unwrap();
    sql.wait_for_waiting(1).await;
    assert_eq!(app.get("/api/users/1").await.json()["user"]["name"], "User 1");

    client.reset();
    let counted = async || app.answered("/api/users/{id}", 499).await == 1.0;
    wait_until("the reset is counted", LIMIT, counted).await.unwrap();
    sql.unlock().await;

    let new = async || app.get("/api/users/1").await.json()["user"]["name"] == "New Name";
    wait_until("the new name is read", LIMIT, new).await.unwrap();
    assert_eq!(sql.text("select name from users where id = 1").await, "New Name");
}
