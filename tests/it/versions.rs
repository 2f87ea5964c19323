//! Read your writes: `X-Version` of a write, `X-Min-Version` of a read.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Sql, TOKEN, TestApp, replicas};

fn version(answer: &Answer) -> u64 {
    answer.header("x-version").parse().unwrap()
}

async fn create(app: &TestApp) -> (String, u64) {
    let user = json!({"name": "Ada", "email": "ada@example.com"});
    let created = app.write(Method::POST, "/api/users", &user).await;
    (created.header("location").to_owned(), version(&created))
}

async fn read(app: &TestApp, path: &str, least: &str) -> Answer {
    app.send(app.request(Method::GET, path).header("x-min-version", least)).await
}

#[tokio::test]
async fn every_write_answers_with_a_higher_version() {
    let app = TestApp::start().await;
    let (path, created) = create(&app).await;
    let user = json!({"name": "Ada King", "email": "ada@example.com"});
    let replaced = version(&app.write(Method::PUT, &path, &user).await);
    let deleted = version(&app.send(app.request(Method::DELETE, &path).bearer_auth(TOKEN)).await);
    assert!(created < replaced && replaced < deleted, "{created} {replaced} {deleted}");
}

/// As of a logical subscriber, or beside rows of a dump.
#[tokio::test]
async fn versions_grow_and_etags_change_wherever_the_sequence_stands() {
    let app = TestApp::start().await;
    let sql = Sql::connect(&app.database.as_ref().unwrap().url()).await;
    let (path, mut before) = create(&app).await;
    let mut etags = Vec::new();
    for round in 0..3 {
        etags.push(app.get(&path).await.header("etag").to_owned());
        sql.run("select setval('row_version', 1)").await;
        let user = json!({"name": format!("Ada {round}"), "email": "ada@example.com"});
        let after = version(&app.write(Method::PUT, &path, &user).await);
        assert!(after > before, "{before} {after}");
        before = after;
        for etag in &etags {
            let request = app.request(Method::GET, &path).header("if-none-match", etag);
            assert_eq!(app.send(request).await.status, 200, "{etag} was of something else");
        }
    }
    sql.run("select setval('row_version', 1)").await;
    assert!(version(&app.delete(&path).await) > before);
}

#[tokio::test]
async fn who_asks_for_the_version_of_a_write_reads_it_on_any_replica() {
    let (one, other) = replicas().await;
    let (path, _) = create(&one).await;
    for round in 0..20 {
        assert_eq!(other.get(&path).await.status, 200, "so that it has a copy to be wrong with");
        let name = format!("Ada {round}");
        let written = version(&one.write(Method::PUT, &path, &json!({"name": name, "email": "ada@example.com"})).await);
        let answer = read(&other, &path, &written.to_string()).await;
        assert_eq!(answer.json()["user"]["name"], name);
    }
}

#[tokio::test]
async fn a_version_that_nobody_has_written_is_a_conflict() {
    let app = TestApp::start().await;
    let (path, created) = create(&app).await;
    read(&app, &path, &(created + 1).to_string()).await.problem(409);
    assert_eq!(read(&app, &path, &created.to_string()).await.status, 200);
}

#[tokio::test]
async fn a_version_far_above_all_is_refused_without_asking_the_database() {
    let app = TestApp::start().await;
    let (path, created) = create(&app).await;
    app.wait_until_heard().await;
    let queries = app.queries("user").await;
    for _ in 0..50 {
        read(&app, &path, &(created + 1_000_000_000).to_string()).await.problem(409);
    }
    assert_eq!(app.queries("user").await, queries);
}

#[tokio::test]
async fn a_version_that_is_none_is_a_bad_request() {
    let app = TestApp::start().await;
    let (path, _) = create(&app).await;
    for bad in ["", "x", "-1", "1.5", "99999999999999999999"] {
        read(&app, &path, bad).await.problem(400);
    }
}

#[tokio::test]
async fn what_was_deleted_is_not_found_whatever_version_is_asked_for() {
    let app = TestApp::start().await;
    let (path, _) = create(&app).await;
    let deleted = version(&app.send(app.request(Method::DELETE, &path).bearer_auth(TOKEN)).await);
    read(&app, &path, &deleted.to_string()).await.problem(404);
}

#[tokio::test]
async fn an_answer_tells_its_age() {
    let app = TestApp::start().await;
    let (path, _) = create(&app).await;
    assert_eq!(app.get(&path).await.header("age"), "0");
    let older = async || app.get(&path).await.header("age").parse::<u32>().unwrap() >= 1;
    devkit::wait_until("a second has passed", crate::support::LIMIT, older).await.unwrap();
}
