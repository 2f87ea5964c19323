//! `/api/users/{id}` and its writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use devkit::wait_until;
use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, LIMIT, TestApp, replicas, sql};

async fn version(app: &TestApp, id: i64) -> i64 {
    sql(app).await.query_one("select version from users where id = $1", &[&id]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_user_is_loaded_once_and_then_comes_from_the_cache() {
    let app = TestApp::start().await;
    let id = app.create_user("Ada", "ada@example.com").await;
    let first = app.get(&format!("/api/users/{id}")).await;
    let second = app.get(&format!("/api/users/{id}")).await;
    let user = json!({"id": id, "name": "Ada", "email": "ada@example.com"});
    assert_eq!((first.status.as_u16(), first.header("content-type")), (200, "application/json"));
    assert_eq!(first.json(), json!({"user": user, "cached": false}));
    assert_eq!(second.json(), json!({"user": user, "cached": true}));
    assert!(second.header("cache-status").contains("hit"));
}

#[tokio::test]
async fn creating_a_user_answers_201_and_where_it_is() {
    let app = TestApp::start().await;
    let body = json!({"name": "  Grace Hopper ", "email": "grace@example.com", "unknown": 1});
    let answer = app.write(Method::POST, "/api/users", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let id = answer.json()["user"]["id"].as_i64().unwrap();
    let user = json!({"id": id, "name": "Grace Hopper", "email": "grace@example.com"});
    assert_eq!(answer.json(), json!({"user": user}));
    assert_eq!(answer.header("location"), format!("/api/users/{id}"));
    assert_eq!(app.get(answer.header("location")).await.json()["user"], user);
}

#[tokio::test]
async fn replacing_a_user_answers_it_as_it_is_now() {
    let app = TestApp::start().await;
    let id = app.create_user("Ada", "ada@example.com").await;
    let body = json!({"name": "Ada King", "email": "ADA@example.com"});
    let answer = app.write(Method::PUT, &format!("/api/users/{id}"), &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json(), json!({"user": {"id": id, "name": "Ada King", "email": "ADA@example.com"}}));
}

#[tokio::test]
async fn a_deleted_user_is_gone_at_once() {
    let app = TestApp::start().await;
    let id = app.create_user("Ada", "ada@example.com").await;
    let path = format!("/api/users/{id}");
    app.get(&path).await;
    let answer = app.delete(&path).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    assert_eq!(app.get(&path).await.problem(404)["detail"], "User not found");
    assert_eq!(app.delete(&path).await.problem(404)["detail"], "User not found");
}

#[tokio::test]
async fn an_address_is_unique_without_regard_to_case() {
    let app = TestApp::start().await;
    app.create_user("Ada", "ada@example.com").await;
    let id = app.create_user("Grace", "grace@example.com").await;
    let taken = json!({"name": "Another", "email": "ADA@Example.com"});
    let created = app.write(Method::POST, "/api/users", &taken).await;
    let replaced = app.write(Method::PUT, &format!("/api/users/{id}"), &taken).await;
    assert_eq!(created.problem(409)["detail"], "Another user has this e-mail address.");
    assert_eq!(replaced.problem(409)["detail"], "Another user has this e-mail address.");
    let kept = app.get(&format!("/api/users/{id}")).await.json();
    assert_eq!(kept["user"]["email"], "grace@example.com");
}

#[tokio::test]
async fn ids_that_rows_brought_along_are_nobodys_mistake() {
    let app = TestApp::start().await;
    let sql = sql(&app).await;
    let rows = "insert into users (id, name, email) select i, 'a', 'u' || i from generate_series(1, 20) i";
    sql.batch_execute(rows).await.unwrap();
    let created = |i: i32| {
        let user = json!({"name": "Ada", "email": format!("ada{i}@example.com")});
        let app = &app;
        async move { app.write(Method::POST, "/api/users", &user).await }
    };
    let answers = futures_util::future::join_all((0..8).map(created)).await;
    let id = |answer: &Answer| answer.json()["user"]["id"].as_i64().unwrap_or_default();
    let ids: BTreeSet<_> = answers.iter().map(id).collect();
    assert!(ids.len() == 8 && ids.first() > Some(&20), "{ids:?}");
}

#[tokio::test]
async fn what_the_client_has_already_is_not_sent_again() {
    let app = TestApp::start().await;
    let path = format!("/api/users/{}", app.create_user("Ada", "ada@example.com").await);
    let etag = app.get(&path).await.header("etag").to_owned();
    let version = version(&app, 1).await;
    assert_eq!(etag, format!("W/\"1-{version}\""), "schema and version");
    let with = |tag: &str| app.request(Method::GET, &path).header("if-none-match", tag);
    for tag in [etag.as_str(), etag.trim_start_matches("W/"), &format!("\"x\", {etag}"), "*"] {
        let answer = app.send(with(tag)).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (304, ""), "{tag}");
        assert_eq!(answer.header("etag"), etag);
        assert!(answer.header("cache-status").contains("hit"));
        assert!(answer.header("cache-control").contains("must-revalidate"));
    }
    assert_eq!(app.send(with("\"other\"")).await.status, 200);
}

#[tokio::test]
async fn a_write_gives_a_user_a_new_etag() {
    let app = TestApp::start().await;
    let path = format!("/api/users/{}", app.create_user("Ada", "ada@example.com").await);
    let before = app.get(&path).await.header("etag").to_owned();
    app.write(Method::PUT, &path, &json!({"name": "Ada King", "email": "ada@example.com"})).await;
    let answer = app.send(app.request(Method::GET, &path).header("if-none-match", &before)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["user"]["name"], "Ada King");
    assert_ne!(answer.header("etag"), before);
}

#[tokio::test]
async fn cache_status_names_the_tier_that_answered() {
    let (app, other) = replicas().await;
    let path = format!("/api/users/{}", app.create_user("Ada", "ada@example.com").await);
    let parts = |answer: &crate::support::Answer| -> Vec<String> {
        let text = answer.header("cache-status").to_owned();
        let parts = text.split("; ").map(str::to_owned);
        parts.filter(|part| !part.starts_with("ttl=")).collect()
    };
    let loaded = app.get(&path).await;
    assert_eq!(parts(&loaded), ["plinth", "fwd=uri-miss", "stored", "detail=source"]);
    assert_eq!(parts(&app.get(&path).await), ["plinth", "hit", "detail=l1"]);
    assert_eq!(parts(&other.get(&path).await), ["plinth", "hit", "detail=l2"]);
    let ttl = loaded.header("cache-status").split("ttl=").nth(1).and_then(|rest| rest.split(';').next());
    assert!(ttl.and_then(|ttl| ttl.parse::<u64>().ok()).is_some_and(|ttl| ttl > 0), "{ttl:?}");
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let app = TestApp::start().await;
    let path = format!("/api/users/{}", app.create_user("Ada", "ada@example.com").await);
    app.get(&path).await;
    let get = app.get(&path).await;
    let head = app.send(app.request(Method::HEAD, &path)).await;
    assert_eq!((head.status, head.text.as_str()), (get.status, ""));
    for name in ["etag", "content-type", "content-length", "cache-control"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    let missing = app.send(app.request(Method::HEAD, "/api/users/999999")).await;
    assert_eq!((missing.status.as_u16(), missing.text.as_str()), (404, ""));
}

#[tokio::test]
async fn a_version_grows_whoever_changes_the_row() {
    let app = TestApp::start().await;
    let id = app.create_user("Ada", "ada@example.com").await;
    let created = version(&app, id).await;
    app.write(Method::PUT, &format!("/api/users/{id}"), &json!({"name": "B", "email": "b@example.com"})).await;
    let replaced = version(&app, id).await;
    let sql = sql(&app).await;
    sql.execute("update users set name = 'C', version = 1 where id = $1", &[&id]).await.unwrap();
    let updated = version(&app, id).await;
    sql.execute("delete from users where id = $1", &[&id]).await.unwrap();
    let again = "insert into users (id, name, email, version) values ($1, 'D', 'd@example.com', 1)";
    sql.execute(again, &[&id]).await.unwrap();
    let reborn = version(&app, id).await;
    assert!(created < replaced && replaced < updated && updated < reborn, "{created} {replaced} {updated} {reborn}");
}

#[tokio::test]
async fn a_remembered_absence_ends_when_the_user_is_created() {
    let app = TestApp::start().await;
    let first = app.create_user("Ada", "ada@example.com").await;
    let path = format!("/api/users/{}", first + 1);
    app.get(&path).await.problem(404);
    let remembered = app.get(&path).await;
    remembered.problem(404);
    assert!(remembered.header("cache-status").contains("hit"), "{:?}", remembered.headers);
    assert_eq!(app.create_user("Grace", "grace@example.com").await, first + 1);
    assert_eq!(app.get(&path).await.json()["user"]["name"], "Grace");
}

#[tokio::test]
async fn after_a_write_no_read_of_this_replica_is_older() {
    let app = Arc::new(TestApp::start().await);
    let path = format!("/api/users/{}", app.create_user("0", "ada@example.com").await);
    let (written, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let readers = [(); 4].map(|()| {
        let (app, path, written, done) = (app.clone(), path.clone(), written.clone(), done.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let least = written.load(Ordering::SeqCst);
                let name = app.get(&path).await.json()["user"]["name"].as_str().unwrap().to_owned();
                assert!(name.parse::<usize>().unwrap() >= least, "{name} was read after {least} was written");
            }
        })
    });
    for number in 1..=50_usize {
        let body = json!({"name": number.to_string(), "email": "ada@example.com"});
        assert_eq!(app.write(Method::PUT, &path, &body).await.status, 200);
        written.store(number, Ordering::SeqCst);
        assert_eq!(app.get(&path).await.json()["user"]["name"], number.to_string());
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn a_write_shows_soon_on_the_other_replica() {
    let (app, other) = replicas().await;
    let path = format!("/api/users/{}", app.create_user("Ada", "ada@example.com").await);
    app.get(&path).await;
    other.get(&path).await;
    assert!(other.get(&path).await.header("cache-status").contains("detail=l1"));
    app.write(Method::PUT, &path, &json!({"name": "Ada King", "email": "ada@example.com"})).await;
    let shows = async || other.get(&path).await.json()["user"]["name"] == "Ada King";
    wait_until("the other replica shows the new name", LIMIT, shows).await.unwrap();
    app.delete(&path).await;
    let gone = async || other.get(&path).await.status == 404;
    wait_until("the other replica has forgotten the user", LIMIT, gone).await.unwrap();
}
