//! Postgres away in every way it can be.

use std::time::Duration;

use devkit::{Fault, wait_until};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{Builder, LIMIT, OwnPostgres, Sql, TestApp, Wire, signal};

/// Well above the 3 s of REQUEST_TIMEOUT here; what takes longer than this waits for something it must not wait for.
const DEADLINE: Duration = Duration::from_secs(10);

/// The whole story: what is cached is answered, the rest is a problem in time, and all is well soon after.
async fn lives_through(postgres: &OwnPostgres, fault: impl AsyncFnOnce(), end: impl AsyncFnOnce()) {
    let app = postgres.app().start().await;
    for id in 1..=3 {
        assert_eq!(app.get(&format!("/api/users/{id}")).await.status, 200);
    }
    app.wait_for_health("healthy").await;
    let files = app.sum("process_open_fds", &[]).await;

    fault().await;

    let uncached: Vec<_> = (101..=130).map(|id| format!("/api/users/{id}")).collect();
    let body = json!({"name": "Name", "email": "new@example.com"});
    let problems = async {
        let reads = join_all(uncached.iter().map(|path| app.get(path)));
        let (reads, list, test, write, create) = tokio::join!(
            reads,
            app.get("/api/users"),
            app.get("/api/test"),
            app.write(Method::PUT, "/api/users/200", &body),
            app.write(Method::POST, "/api/users", &body),
        );
        reads.into_iter().chain([list, test, write, create]).collect::<Vec<_>>()
    };
    for answer in timeout(DEADLINE, problems).await.expect("problems come within the deadline") {
        answer.problem(503);
        assert_ne!(answer.header("retry-after"), "");
    }
    for id in 1..=3 {
        assert_eq!(app.get(&format!("/api/users/{id}")).await.status, 200, "it is cached");
    }
    app.wait_for_health("degraded").await;
    assert_eq!(app.get("/health").await.status, 200);
    assert_eq!(app.get("/health/ready").await.status, 200);
    // Those of the test's requests, the pool's, and those that are being made or given up.
    let files_during = app.sum("process_open_fds", &[]).await;
    assert!(files_during < files + 60.0, "{files} open files grew to {files_during}");

    end().await;

    postgres.wait_until_used_by(&app).await;
    app.wait_for_health("healthy").await;
    assert_eq!(app.write(Method::PUT, "/api/users/200", &body).await.status, 200);
    assert_eq!(app.sum("panics_total", &[]).await, 0.0);
    // The pool's four, that of the health checks and that of the log's reader.
    let settled = async || postgres.proxy.connections() <= 6;
    wait_until("no more connections than configured", LIMIT, settled).await.unwrap();
}

#[tokio::test]
async fn what_is_cached_is_answered_while_postgres_is_killed() {
    let postgres = OwnPostgres::start().await;
    let kill = async || postgres.server.kill().await.unwrap();
    let restart = async || postgres.server.restart().await.unwrap();
    lives_through(&postgres, kill, restart).await;
}

#[tokio::test]
async fn what_is_cached_is_answered_while_postgres_is_frozen() {
    let postgres = OwnPostgres::start().await;
    let freeze = async || postgres.server.freeze().unwrap();
    let thaw = async || postgres.server.thaw().unwrap();
    lives_through(&postgres, freeze, thaw).await;
}

#[tokio::test]
async fn what_is_cached_is_answered_while_postgres_is_a_black_hole() {
    let postgres = OwnPostgres::start().await;
    let begin = async || postgres.proxy.set(Fault::BlackHole);
    let end = async || postgres.proxy.set(Fault::None);
    lives_through(&postgres, begin, end).await;
}

/// With time enough for a machine that is busy.
fn patient(builder: Builder) -> Builder {
    builder.env("DATABASE_ACQUIRE_TIMEOUT", "20s").env("REQUEST_TIMEOUT", "60s")
}

#[tokio::test]
async fn a_restart_of_postgres_is_not_noticed_by_later_requests() {
    let postgres = OwnPostgres::start().await;
    let app = patient(postgres.app()).start().await;
    assert!(join_all((1..=4).map(|id| read(&app, id))).await.iter().all(|status| *status == 200));

    postgres.server.restart().await.unwrap();

    for id in 11..=20 {
        assert_eq!(read(&app, id).await, 200);
    }
}

async fn read(app: &TestApp, id: i64) -> u16 {
    app.get(&format!("/api/users/{id}")).await.status.as_u16()
}

#[tokio::test]
async fn reads_survive_connections_that_are_cut() {
    let postgres = OwnPostgres::start().await;
    let app = patient(postgres.app()).start().await;
    for id in 1..=20 {
        assert_eq!(read(&app, id).await, 200);
        postgres.proxy.cut();
    }
}

#[tokio::test]
async fn half_open_connections_to_postgres_are_given_up() {
    let postgres = OwnPostgres::start().await;
    let app = postgres.app().env("DATABASE_POOL_MIN", "4").env("REQUEST_TIMEOUT", "10s").start().await;
    let open = async || app.get("/health").await.json()["pools"]["postgres"]["free_size"] == 4;
    wait_until("the pool is full", LIMIT, open).await.unwrap();

    postgres.proxy.set(Fault::HalfOpen);

    // One request finds out; the others needn't find out again, each for its own connection.
    timeout(LIMIT, read(&app, 1)).await.expect("an answer");
    let started = std::time::Instant::now();
    for id in 11..=20 {
        assert_eq!(read(&app, id).await, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(7), "took {:?}, as long as finding out", started.elapsed());
    app.wait_for_health("healthy").await;
}

#[tokio::test]
async fn connections_that_are_never_answered_do_not_pile_up() {
    let postgres = OwnPostgres::start().await;
    let app = postgres.app().env("DATABASE_POOL_MIN", "4").start().await;
    app.wait_for_health("healthy").await;
    postgres.proxy.set(Fault::BlackHole);
    postgres.proxy.cut();
    let accepted = postgres.proxy.accepted();

    let tried = async || postgres.proxy.accepted() >= accepted + 20;
    wait_until("connecting was tried often", LIMIT, tried).await.unwrap();

    // The pool's four, that of the health checks, and as many that are being given up.
    assert!(postgres.proxy.connections() <= 10, "{} connections", postgres.proxy.connections());
}

#[tokio::test]
async fn queries_of_health_checks_that_are_never_answered_leave_no_connection() {
    let postgres = OwnPostgres::start().await;
    let app = postgres.app().env("DATABASE_POOL_MIN", "1").start().await;
    app.wait_for_health("healthy").await;
    let sql = Sql::connect(&postgres.server.url("postgres")).await;
    let asked =
        "select (select pid::bigint from pg_stat_activity where query = 'select 1' order by query_start desc limit 1)";
    let files = async || app.sum("process_open_fds", &[]).await;
    let before = files().await;

    // Login works, but the query is never answered, as behind a pooler that has lost its database.
    let mut frozen = Vec::new();
    for _ in 0..4 {
        let asker = async || u32::try_from(sql.number(asked).await).unwrap();
        wait_until("a health check", LIMIT, async || !frozen.contains(&asker().await)).await.unwrap();
        let pid = asker().await;
        signal(pid, "STOP");
        frozen.push(pid);
        app.wait_for_health("degraded").await;
        app.wait_for_health("healthy").await;
    }

    let back = async || files().await <= before;
    wait_until("no more connections than before", LIMIT, back).await.unwrap();
    frozen.into_iter().for_each(|pid| signal(pid, "CONT"));
}

#[tokio::test]
async fn without_redis_too_the_service_is_unhealthy_but_stays_ready() {
    let postgres = OwnPostgres::start().await;
    let app = postgres.app().without_redis().start().await;
    app.wait_for_health("healthy").await;

    postgres.server.kill().await.unwrap();

    app.wait_for_health("unhealthy").await;
    assert_eq!(app.get("/health").await.status, 503);
    assert_eq!(app.get("/health/ready").await.status, 200);
    postgres.server.restart().await.unwrap();
    app.wait_for_health("healthy").await;
}

#[tokio::test]
async fn with_redis_gone_as_well_the_service_is_unhealthy() {
    let postgres = OwnPostgres::start().await;
    let app = postgres.app().start().await;
    app.wait_for_health("healthy").await;

    postgres.server.kill().await.unwrap();
    app.redis.as_ref().unwrap().stop().await.unwrap();

    app.wait_for_health("unhealthy").await;
    assert_eq!(app.get("/health").await.status, 503);
    app.redis.as_ref().unwrap().start_again().await.unwrap();
    app.wait_for_health("degraded").await;
}

/// A service with one connection, and a session that can lock its table.
async fn with_one_connection(settings: &[(&str, &str)]) -> (TestApp, Sql) {
    let mut builder = TestApp::builder().env("DATABASE_POOL_MAX", "1").env("DATABASE_ACQUIRE_TIMEOUT", "500ms");
    for (name, value) in settings {
        builder = builder.env(name, value);
    }
    let app = builder.start().await;
    let sql = Sql::connect(&app.database.as_ref().unwrap().url()).await;
    sql.add_users(20).await;
    (app, sql)
}

#[tokio::test]
async fn a_request_waits_for_a_connection_no_longer_than_configured() {
    let (app, sql) = with_one_connection(&[("REQUEST_TIMEOUT", "60s")]).await;
    sql.lock_users().await;
    let others = async {
        sql.wait_for_waiting(1).await;
        let started = std::time::Instant::now();
        let answers = join_all(
            // Lists aren't cached, so nothing but the pool is in their way.
            (2..=5)
                .map(|after| async move { after })
                .map(async |after| app.get(&format!("/api/users?after={}", after.await)).await),
        )
        .await;
        let took = started.elapsed();
        sql.unlock().await;
        (answers, took)
    };

    let (first, (answers, took)) = tokio::join!(read(&app, 1), others);

    assert_eq!(first, 200, "who has the connection isn't disturbed: {:?}", app.log());
    for answer in answers {
        answer.problem(503);
        assert_ne!(answer.header("retry-after"), "");
    }
    assert!(took < DEADLINE, "{took:?}");
    assert!(app.sum("db_client_connection_timeouts_total", &[]).await >= 4.0);
}

#[tokio::test]
async fn a_statement_takes_no_longer_than_configured() {
    let (app, sql) = with_one_connection(&[("REQUEST_TIMEOUT", "60s"), ("DATABASE_COMMAND_TIMEOUT", "500ms")]).await;
    sql.lock_users().await;
    let body = json!({"name": "Name", "email": "user2@example.com"});

    app.get("/api/users/1").await.problem(503);
    app.write(Method::PUT, "/api/users/2", &body).await.problem(503);

    assert_eq!(sql.waiting().await, 0, "the server has given up as well");
    sql.unlock().await;
    assert_eq!(read(&app, 3).await, 200);
}

#[tokio::test]
async fn a_cancelled_query_holds_no_connection() {
    let patient =
        [("REQUEST_TIMEOUT", "20s"), ("DATABASE_COMMAND_TIMEOUT", "250s"), ("DATABASE_ACQUIRE_TIMEOUT", "10s")];
    let (app, sql) = with_one_connection(&patient).await;
    sql.lock_users().await;
    let mut client = Wire::open(&app.url).await.unwrap();
    client.send_get("/api/users", "").await.unwrap();
    sql.wait_for_waiting(1).await;

    client.reset();
    let counted = async || app.answered("/api/users", 499).await == 1.0;
    wait_until("the reset is counted", LIMIT, counted).await.unwrap();

    assert_eq!(app.get("/api/test").await.status, 200, "the table is locked, but the pool isn't empty");
    sql.wait_for_waiting(0).await;
}

#[tokio::test]
async fn a_query_longer_than_its_request_holds_no_connection() {
    let settings =
        [("REQUEST_TIMEOUT", "5s"), ("DATABASE_COMMAND_TIMEOUT", "250s"), ("DATABASE_ACQUIRE_TIMEOUT", "3s")];
    let (app, sql) = with_one_connection(&settings).await;
    sql.lock_users().await;

    app.get("/api/users").await.problem(503);
    app.get("/api/users/1").await.problem(503);

    assert_eq!(app.get("/api/test").await.status, 200, "the table is locked, but the pool isn't empty");
    sql.wait_for_waiting(0).await;
}

#[tokio::test]
async fn a_service_started_before_postgres_waits_for_it() {
    let postgres = OwnPostgres::start().await;
    postgres.server.kill().await.unwrap();
    let app = postgres.app().without_waiting().start().await;
    waiting_lines(&app, 3).await;
    assert_eq!(app.get("/health/ready").await.status, 503);
    assert_eq!(app.get("/health/live").await.status, 200);
    assert_eq!(app.get("/health/startup").await.status, 503);
    app.get("/api/users/1").await.problem(503);

    postgres.server.restart().await.unwrap();

    app.wait_until_ready().await;
    assert_eq!(read(&app, 1).await, 200);
}

#[tokio::test]
async fn a_service_started_before_a_silent_postgres_keeps_asking() {
    let postgres = OwnPostgres::start().await;
    postgres.proxy.set(Fault::BlackHole);
    let app = postgres.app().without_waiting().start().await;

    waiting_lines(&app, 3).await;
    postgres.proxy.set(Fault::None);

    app.wait_until_ready().await;
}

/// Waits until the log has said so often that the database is waited for.
async fn waiting_lines(app: &TestApp, count: usize) {
    let waits = |line: &&serde_json::Value| line["message"] == "waiting for the database";
    let said = async || app.log().iter().filter(waits).count() >= count;
    wait_until("the log says that it waits", LIMIT, said).await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_new_connections_is_a_problem_to_try_again() {
    let postgres = OwnPostgres::start().await;
    let sql = Sql::connect(&postgres.server.url("postgres")).await;
    sql.run("create role guest login password 'guest'; grant pg_read_all_data to guest").await;
    let url = postgres.server.url("postgres");
    let (_, place) = url.rsplit_once('@').unwrap();
    let app = TestApp::builder().env("DATABASE_URL", format!("postgres://guest:guest@{place}")).start().await;
    assert_eq!(read(&app, 1).await, 200);

    sql.run("alter role guest nologin").await;
    sql.number("select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'guest'").await;

    let answer = app.get("/api/users/2").await;
    answer.problem(503);
    assert_ne!(answer.header("retry-after"), "");
}
