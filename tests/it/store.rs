//! How statements meet what a database does in its ordinary life.

use devkit::wait_until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LIMIT, Sql, TestApp};

/// A service with one pooled connection and users 1 to 20, and a session beside it.
async fn with_one_connection() -> (TestApp, Sql) {
    let app = TestApp::builder().env("DATABASE_POOL_MAX", "1").start().await;
    let sql = Sql::connect(&app.database.as_ref().unwrap().url()).await;
    sql.add_users(20).await;
    (app, sql)
}

fn user(name: &str, id: i64) -> Value {
    json!({"name": name, "email": format!("user{id}@example.com")})
}

/// Makes the first `times` updates of users fail like this; counted outside of the transactions, which are undone.
async fn fail_updates(sql: &Sql, times: i64, state: &str) {
    sql.run(&format!(
        "create sequence attempts;
         create function fail() returns trigger language plpgsql as $$
         begin
             if nextval('attempts') <= {times} then raise exception 'provoked' using errcode = '{state}'; end if;
             return new;
         end $$;
         create trigger fail before update on users for each row execute function fail()"
    ))
    .await;
}

#[tokio::test]
async fn a_read_whose_plan_became_stale_is_repeated() {
    let (app, sql) = with_one_connection().await;
    assert_eq!(app.get("/api/users/1").await.status, 200);

    sql.run("alter table users alter column name type varchar(300)").await;

    assert_eq!(app.get("/api/users/2").await.status, 200);
    assert_eq!(app.queries("user").await, 2.0, "repeated within one operation");
}

#[tokio::test]
async fn a_write_whose_plan_became_stale_is_repeated() {
    let (app, sql) = with_one_connection().await;
    assert_eq!(app.write(Method::PUT, "/api/users/1", &user("One", 1)).await.status, 200);

    sql.run("alter table users alter column name type varchar(300)").await;

    assert_eq!(app.write(Method::PUT, "/api/users/1", &user("Two", 1)).await.status, 200);
    assert_eq!(sql.text("select name from users where id = 1").await, "Two");
}

#[tokio::test]
async fn a_write_that_lost_a_race_is_repeated() {
    for state in ["40001", "40P01"] {
        let (app, sql) = with_one_connection().await;
        fail_updates(&sql, 2, state).await;

        assert_eq!(app.write(Method::PUT, "/api/users/1", &user("Won", 1)).await.status, 200, "{state}");

        assert_eq!(sql.number("select last_value from attempts").await, 3);
        assert_eq!(sql.text("select name from users where id = 1").await, "Won");
    }
}

#[tokio::test]
async fn a_write_that_always_loses_its_race_is_a_problem_to_try_again() {
    let (app, sql) = with_one_connection().await;
    fail_updates(&sql, 1000, "40001").await;

    let answer = app.write(Method::PUT, "/api/users/1", &user("Lost", 1)).await;

    answer.problem(503);
    assert_ne!(answer.header("retry-after"), "");
    assert!(!answer.text.contains("provoked"), "{}", answer.text);
    assert_eq!(sql.number("select last_value from attempts").await, 3);
}

#[tokio::test]
async fn a_failed_write_leaves_no_transaction_open() {
    let (app, sql) = with_one_connection().await;

    app.write(Method::PUT, "/api/users/1", &user("Taken", 2)).await.problem(409);

    assert_eq!(app.write(Method::PUT, "/api/users/3", &user("Three", 3)).await.status, 200);
    let open = "datname = current_database() and state like 'idle in transaction%'";
    assert_eq!(sql.number(&format!("select count(*) from pg_stat_activity where {open}")).await, 0);
}

#[tokio::test]
async fn a_write_on_a_connection_to_a_former_standby_is_repeated_on_a_new_one() {
    let (app, sql) = with_one_connection().await;
    let name = app.database.as_ref().unwrap().name();
    sql.run(&format!("alter database {name:?} set default_transaction_read_only = on")).await;
    drop_pooled(&sql).await;
    assert_eq!(app.get("/api/users/1").await.status, 200, "a connection that can't write");
    sql.run(&format!("alter database {name:?} reset default_transaction_read_only")).await;

    assert_eq!(app.write(Method::PUT, "/api/users/1", &user("Written", 1)).await.status, 200);
    assert_eq!(sql.text("select name from users where id = 1").await, "Written");
}

#[tokio::test]
async fn a_write_to_a_read_only_server_is_a_clear_problem() {
    let (app, sql) = with_one_connection().await;
    let name = app.database.as_ref().unwrap().name();
    sql.run(&format!("alter database {name:?} set default_transaction_read_only = on")).await;
    drop_pooled(&sql).await;

    for answer in [
        app.write(Method::PUT, "/api/users/1", &user("Lost", 1)).await,
        app.write(Method::POST, "/api/users", &json!({"name": "New", "email": "new@example.com"})).await,
        app.delete("/api/users/1").await,
    ] {
        let problem = answer.problem(503);
        assert!(problem["detail"].as_str().unwrap().contains("no writes"), "{problem}");
        assert_ne!(answer.header("retry-after"), "");
    }
    assert_eq!(app.get("/api/users/1").await.status, 200);
}

/// Ends the service's connections, so that the next ones are new sessions.
async fn drop_pooled(sql: &Sql) {
    let others = "datname = current_database() and pid <> pg_backend_pid()";
    let end = format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where {others}");
    sql.number(&end).await;
}

#[tokio::test]
async fn connections_that_the_server_ended_are_noticed_before_use() {
    let (app, sql) = with_one_connection().await;
    for id in 1..=10 {
        drop_pooled(&sql).await;
        assert_eq!(app.get(&format!("/api/users/{id}")).await.status, 200);
        drop_pooled(&sql).await;
        assert_eq!(app.write(Method::PUT, &format!("/api/users/{id}"), &user("Written", id)).await.status, 200);
    }
}

#[tokio::test]
async fn the_pool_keeps_its_minimum_of_connections() {
    let app = TestApp::builder().env("DATABASE_POOL_MIN", "3").start().await;
    let sql = Sql::connect(&app.database.as_ref().unwrap().url()).await;
    let open = async || app.get("/health").await.json()["pools"]["postgres"]["free_size"].as_u64() >= Some(3);
    wait_until("three connections are open", LIMIT, open).await.unwrap();
    let named =
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'plinth'";
    let all = async || sql.number(named).await >= 5;
    wait_until("three are there, that of the health check and that of the log's reader", LIMIT, all).await.unwrap();

    drop_pooled(&sql).await;

    wait_until("they are there again", LIMIT, all).await.unwrap();
}

#[tokio::test]
async fn filling_the_pool_makes_nobody_wait_and_counts_as_no_wait() {
    let app = TestApp::builder().env("DATABASE_POOL_MIN", "8").env("DATABASE_POOL_MAX", "8").start().await;
    let sql = Sql::connect(&app.database.as_ref().unwrap().url()).await;
    let full = async || app.get("/health").await.json()["pools"]["postgres"]["free_size"].as_u64() == Some(8);
    wait_until("all connections are open", LIMIT, full).await.unwrap();
    let waits = app.sum("db_client_connection_wait_time_seconds_count", &[]).await;

    drop_pooled(&sql).await;

    wait_until("all connections are open again", LIMIT, full).await.unwrap();
    // The log may have been looked after in the meantime.
    assert!(app.sum("db_client_connection_wait_time_seconds_count", &[]).await - waits < 6.0);
}
