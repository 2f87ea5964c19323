//! Whoever changes a row, and whatever Redis does: within a second no replica answers what it was before.

use std::time::{Duration, Instant};

use devkit::wait_until;
use reqwest::Method;
use serde_json::json;

use crate::support::{Builder, LIMIT, OwnPostgres, Sql, TestApp, redis};

/// Changes user 1 together with more rows than are named one by one.
const MANY: i64 = 1500;

/// The promise, and the time that a busy machine takes to ask.
const BOUND: Duration = Duration::from_secs(1);

async fn name(app: &TestApp) -> String {
    app.get("/api/users/1").await.json()["user"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Reads user 1 until it comes from the cache.
async fn cached(app: &TestApp) {
    let hit = async || app.get("/api/users/1").await.header("cache-status").contains("hit");
    wait_until("user 1 comes from the cache", LIMIT, hit).await.unwrap();
}

/// Does this again and again: each time every replica shows it in time.
async fn shows(replicas: &[&TestApp], change: impl AsyncFn(String)) {
    for round in 0..5 {
        for app in replicas {
            cached(app).await;
        }
        let new = format!("Name {round}");
        change(new.clone()).await;
        let changed = Instant::now();
        for app in replicas {
            loop {
                let asked = changed.elapsed();
                if name(app).await == new {
                    break;
                }
                assert!(asked < BOUND, "older than {new:?} after {asked:?}");
            }
        }
    }
}

/// Two replicas beside user 1; with Redis or without.
async fn replicas(start: impl Fn() -> Builder) -> (TestApp, TestApp, Sql) {
    let one = start().start().await;
    let url = one.database.as_ref().unwrap().url();
    let other = start().env("DATABASE_URL", &url);
    let other = match &one.redis {
        Some(redis) => other.env("REDIS_URL", redis.url()),
        None => other,
    };
    let (other, sql) = (other.start().await, Sql::connect(&url).await);
    sql.add_users(1).await;
    (one, other, sql)
}

async fn put(app: &TestApp, name: String) {
    let user = json!({"name": name, "email": "user1@example.com"});
    assert_eq!(app.write(Method::PUT, "/api/users/1", &user).await.status, 200);
}

#[tokio::test]
async fn plain_sql_shows_on_every_replica() {
    let (one, other, sql) = replicas(TestApp::builder).await;
    let update = async |name| sql.run(&format!("update users set name = '{name}' where id = 1")).await;
    shows(&[&one, &other], update).await;
}

#[tokio::test]
async fn a_batch_of_many_rows_shows_on_every_replica() {
    let (one, other, sql) = replicas(TestApp::builder).await;
    let values = format!("i, 'User', 'user' || i || '@example.com' from generate_series(2, {MANY}) i");
    sql.run(&format!("insert into users (id, name, email) select {values}")).await;
    shows(&[&one, &other], async |name| sql.run(&format!("update users set name = '{name}'")).await).await;
}

#[tokio::test]
async fn a_write_shows_on_every_replica_without_redis() {
    let (one, other, _sql) = replicas(|| TestApp::builder().without_redis()).await;
    shows(&[&other, &one], async |name| put(&one, name).await).await;
}

#[tokio::test]
async fn a_write_shows_on_every_replica_while_redis_refuses_writes() {
    let (one, other, _sql) = replicas(TestApp::builder).await;
    let refuse = redis::cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(1).take();
    let () = refuse.query_async(&mut redis(&one).await).await.unwrap();
    shows(&[&other, &one], async |name| put(&one, name).await).await;
}

#[tokio::test]
async fn a_write_shows_on_a_replica_that_uses_another_redis() {
    let (one, _, _sql) = replicas(TestApp::builder).await;
    let (moved, url) = (devkit::Redis::start().await.unwrap(), one.database.as_ref().unwrap().url());
    let other = TestApp::builder().env("DATABASE_URL", url).env("REDIS_URL", moved.url()).start().await;
    shows(&[&other, &one], async |name| put(&one, name).await).await;
}

#[tokio::test]
async fn rows_of_a_dump_show_on_every_replica() {
    let (one, other, sql) = replicas(TestApp::builder).await;
    let restore = async |name| {
        let row = format!("1, '{name}', 'user1@example.com', 1");
        // As a dump of data alone begins.
        sql.run("select set_config('search_path', '', false); truncate public.users").await;
        sql.run(&format!("insert into public.users (id, name, email, version) values ({row})")).await;
    };
    shows(&[&one, &other], restore).await;
}

#[tokio::test]
async fn writes_that_failed_remove_nothing_and_cached_reads_go_on() {
    let postgres = OwnPostgres::start().await;
    let app = postgres.app().start().await;
    let cached = async |id| {
        let answer = app.get(&format!("/api/users/{id}")).await;
        answer.status == 200 && answer.header("cache-status").contains("hit")
    };
    for id in 1..=20 {
        wait_until("the user is cached", LIMIT, async || cached(id).await).await.unwrap();
    }
    postgres.server.kill().await.unwrap();
    let killed = Instant::now();
    while killed.elapsed() < 4 * BOUND {
        for id in 1..=20 {
            let user = json!({"name": "Nobody", "email": format!("user{id}@example.com")});
            app.write(Method::PUT, &format!("/api/users/{id}"), &user).await.problem(503);
            assert!(cached(id).await, "user {id} after {:?}", killed.elapsed());
        }
    }
}

/// Without Redis, on a database that goes away once user 1 is cached.
async fn blind(postgres: &OwnPostgres, what: &str) -> TestApp {
    let app = postgres.app().without_redis().env("CACHE_WHEN_BLIND", what).start().await;
    cached(&app).await;
    postgres.server.kill().await.unwrap();
    app.wait_for_health("unhealthy").await;
    app
}

#[tokio::test]
async fn who_hears_from_nobody_answers_nothing_that_is_cached() {
    let postgres = OwnPostgres::start().await;
    let app = blind(&postgres, "refuse").await;
    app.get("/api/users/1").await.problem(503);
    let health = app.get("/health").await.json();
    assert_eq!(health["cache"]["fence"], "shut");
    assert!(health["cache"]["log_error"].as_str().is_some_and(|error| error.contains("can't be reached")), "{health}");
    postgres.server.restart().await.unwrap();
    cached(&app).await;
}

#[tokio::test]
async fn who_hears_from_nobody_may_answer_what_it_has_and_marks_it() {
    let postgres = OwnPostgres::start().await;
    let app = blind(&postgres, "serve").await;
    let answer = app.get("/api/users/1").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.header("cache-status").ends_with("detail=l1-unverified"), "{}", answer.header("cache-status"));
    assert!(app.sum("cache_unverified_served_total", &[]).await >= 1.0);
    app.get("/api/users/2").await.problem(503);
}
