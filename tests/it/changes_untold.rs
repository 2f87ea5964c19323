//! Writes of which nobody could tell the others, and replicas that can't read the log: nothing old is answered all the same.

use std::time::{Duration, Instant};

use devkit::{Fault, FaultProxy, Redis, wait_until};
use reqwest::Method;
use serde_json::json;

use crate::support::{LIMIT, OwnPostgres, Sql, TestApp, redis};

/// The promise, and the time that a busy machine takes to ask.
const BOUND: Duration = Duration::from_secs(1);

async fn put(app: &TestApp, name: &str) -> reqwest::Result<reqwest::Response> {
    let user = json!({"name": name, "email": "user1@example.com"});
    app.request(Method::PUT, "/api/users/1").bearer_auth(crate::support::TOKEN).json(&user).send().await
}

async fn name(app: &TestApp) -> Option<String> {
    let answer = app.get("/api/users/1").await;
    (answer.status == 200).then(|| answer.json()["user"]["name"].as_str().unwrap_or_default().to_owned())
}

async fn wait_until_cached(app: &TestApp) {
    let hit = async || app.get("/api/users/1").await.header("cache-status").contains("hit");
    wait_until("user 1 comes from the cache", LIMIT, hit).await.unwrap();
}

/// From a second after `start` on, this is never answered.
async fn is_forgotten(app: &TestApp, old: &str, start: Instant) {
    while start.elapsed() < 4 * BOUND {
        let asked = start.elapsed();
        let name = name(app).await;
        assert!(asked < BOUND || name.as_deref() != Some(old), "{old:?} after {asked:?}");
    }
}

/// Its writer can tell nobody, since Redis is out of its reach, and is killed once the database has the write.
#[tokio::test]
async fn a_write_shows_though_its_writer_died_and_redis_evicts_what_it_can() {
    let crowded = Redis::start().await.unwrap();
    let mut admin = redis::Client::open(crowded.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    for (name, value) in [("maxmemory-policy", "volatile-lfu"), ("maxmemory", "3mb")] {
        let () = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async(&mut admin).await.unwrap();
    }
    let proxy = FaultProxy::start(crowded.address()).await.unwrap();
    let through = format!("redis://127.0.0.1:{}", proxy.port());
    let mut writer = TestApp::builder().env("REDIS_URL", through).env("REDIS_TIMEOUT", "20s").start().await;
    let url = writer.database.as_ref().unwrap().url();
    let other = TestApp::builder().env("DATABASE_URL", &url).env("REDIS_URL", crowded.url()).start().await;
    let sql = Sql::connect(&url).await;
    sql.add_users(1).await;
    let crowd = async |round: i32| {
        for i in 0..40 {
            let (key, life) = (format!("crowd:{round}:{i}"), 600);
            let set = redis::cmd("SETEX").arg(key).arg(life).arg("x".repeat(20_000)).take();
            let () = set.query_async(&mut admin.clone()).await.unwrap();
        }
    };
    crowd(0).await;
    wait_until_cached(&other).await;
    wait_until_cached(&writer).await;
    let old = name(&other).await.unwrap();
    let version = async || sql.number("select version from users where id = 1").await;
    let before = version().await;

    proxy.set(Fault::BlackHole);
    let (write, ()) = tokio::join!(put(&writer, "New"), async {
        wait_until("the write is committed", LIMIT, async || version().await > before).await.unwrap();
        writer.signal("KILL");
    });
    assert!(write.is_err(), "it was killed before it answered");
    let killed = Instant::now();
    crowd(1).await;

    is_forgotten(&other, &old, killed).await;
    assert_eq!(name(&other).await.as_deref(), Some("New"));
    writer.exit().await;
}

/// The commit is carried out, and the database is gone for everybody before it says so.
#[tokio::test]
async fn a_commit_whose_answer_was_lost_with_the_database_leaves_nothing_old() {
    let postgres = OwnPostgres::start().await;
    let sql = Sql::connect(&postgres.server.url("postgres")).await;
    sql.run(
        "create function take_long() returns trigger language plpgsql as
            $$begin perform pg_sleep(0.5); return null; end$$;
        create constraint trigger slow_commit after update on users deferrable initially deferred
            for each row execute function take_long()",
    )
    .await;
    let writer = postgres.app().start().await;
    let other = postgres.app().env("REDIS_URL", writer.redis.as_ref().unwrap().url()).start().await;
    for app in [&writer, &other] {
        wait_until_cached(app).await;
        assert_eq!(app.get("/api/users/2").await.status, 200);
    }
    let old = name(&other).await.unwrap();

    let answer = tokio::join!(put(&writer, "New"), async {
        let commits = "select count(*) from pg_stat_activity where state = 'active' and query = 'COMMIT'";
        wait_until("the commit is under way", LIMIT, async || sql.number(commits).await > 0).await.unwrap();
        postgres.proxy.set(Fault::BlackHole);
    });
    assert_eq!(answer.0.unwrap().status(), 503);

    is_forgotten(&other, &old, Instant::now()).await;
    assert_eq!(sql.text("select name from users where id = 1").await, "New");
    assert_eq!(other.get("/api/users/2").await.status, 200, "what nobody changed is answered on");
}

/// A replica on a proxy to the database, beside one that always reaches it.
async fn beside(postgres: &OwnPostgres, redis: impl AsyncFnOnce(&TestApp) -> String) -> (TestApp, TestApp) {
    let sees = TestApp::builder().env("DATABASE_URL", postgres.server.url("postgres")).start().await;
    let redis = redis(&sees).await;
    let blind = postgres.app().env("REDIS_URL", redis).start().await;
    for app in [&sees, &blind] {
        wait_until_cached(app).await;
    }
    (sees, blind)
}

#[tokio::test]
async fn who_cannot_read_the_log_is_told_by_redis_what_others_read_there() {
    let postgres = OwnPostgres::start().await;
    let (sees, blind) = beside(&postgres, async |sees| sees.redis.as_ref().unwrap().url()).await;
    let sql = Sql::connect(&postgres.server.url("postgres")).await;
    let old = name(&blind).await.unwrap();

    postgres.proxy.set(Fault::BlackHole);
    let start = Instant::now();
    while start.elapsed() < 4 * BOUND {
        let asked = start.elapsed();
        assert_eq!(
            name(&blind).await.as_deref(),
            Some(&*old),
            "what nobody changed is answered on, also after {asked:?}"
        );
    }
    // Only who reads the log can know of it.
    sql.run("update users set name = 'New' where id = 1").await;
    is_forgotten(&blind, &old, Instant::now()).await;

    postgres.proxy.set(Fault::None);
    for app in [&blind, &sees] {
        wait_until_cached(app).await;
        assert_eq!(name(app).await.as_deref(), Some("New"));
    }
}

/// As beside a former primary of Redis that still answers, or while `REDIS_URL` is changed replica by replica.
#[tokio::test]
async fn who_cannot_read_the_log_believes_no_redis_that_the_others_do_not_use() {
    let (postgres, former) = (OwnPostgres::start().await, Redis::start().await.unwrap());
    let (sees, blind) = beside(&postgres, async |_| former.url()).await;
    let old = name(&blind).await.unwrap();
    // Until the blind one has been told how many there are.
    let counted = async || blind.metric("cache_log_replicas").await == Some(2.0);
    wait_until("both know of each other", LIMIT, counted).await.unwrap();

    postgres.proxy.set(Fault::BlackHole);
    let start = Instant::now();
    assert_eq!(put(&sees, "New").await.unwrap().status(), 200);

    is_forgotten(&blind, &old, start).await;
    assert_eq!(blind.get("/health").await.json()["cache"]["fence"], "shut");
}

/// By whoever has rights to the whole of Redis, or takes keys of the cache for his own.
#[tokio::test]
async fn whatever_somebody_does_to_redis_nothing_old_is_answered_and_nothing_runs_in_circles() {
    let one = TestApp::start().await;
    let other = TestApp::builder().beside(&one).start().await;
    Sql::connect(&one.database.as_ref().unwrap().url()).await.add_users(1).await;
    let mut admin = redis(&one).await;
    for (round, what) in ["nothing", "fields", "texts", "lists", "all texts"].into_iter().enumerate() {
        wait_until_shared(&one, &other).await;
        spoil(&mut admin, what).await;
        // With no write that could heal it.
        let before = commands(&mut admin).await;
        tokio::time::sleep(2 * BOUND).await;
        let sent = commands(&mut admin).await - before;
        assert!(sent < 600, "{what}: {sent} commands of two replicas in two seconds");
        let new = format!("Name {round}");
        for app in [&one, &other] {
            assert!(name(app).await.is_some(), "{what}");
        }
        assert_eq!(put(&one, &new).await.unwrap().status(), 200);
        assert_eq!(name(&one).await.as_deref(), Some(&*new), "{what}");
        let shown = async || name(&other).await.as_deref() == Some(&*new);
        wait_until(&format!("a write shows after {what}"), BOUND, shown).await.unwrap();
        if what == "all texts" {
            // Also what the cache keeps there for itself: nobody but who did that should say that it may go.
            one.wait_for_health("degraded").await;
            let health = one.get("/health").await.json();
            assert!(health["services"]["redis"].as_str().unwrap().contains("another type"), "{health}");
            let () = redis::cmd("FLUSHALL").query_async(&mut admin).await.unwrap();
        }
    }
    wait_until_shared(&one, &other).await;
    one.wait_for_health("healthy").await;
}

/// Leaves `what` of what the cache has in Redis.
async fn spoil(admin: &mut redis::aio::MultiplexedConnection, what: &str) {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(admin).await.unwrap();
    let values = keys.iter().filter(|key| key.contains(":v:")).count();
    assert!(values > 0 && values < keys.len(), "{keys:?}");
    for key in keys {
        let mut spoil = redis::pipe();
        match what {
            "nothing" => _ = spoil.del(&key),
            "texts" | "lists" if !key.contains(":v:") => continue,
            "lists" => _ = spoil.del(&key).lpush(&key, "x"),
            "texts" | "all texts" => _ = spoil.set(&key, "x".repeat(40)),
            _ => {
                // Of what has fields.
                let fields = redis::cmd("HKEYS").arg(&key).query_async::<Vec<String>>(admin).await;
                let Ok(fields) = fields else { continue };
                for field in fields {
                    spoil.hset(&key, field, "not what it was");
                }
            }
        }
        let () = spoil.query_async(admin).await.unwrap();
    }
}

/// Until what one of them has loaded is answered by the other from Redis.
async fn wait_until_shared(one: &TestApp, other: &TestApp) {
    let mut round = 0;
    let shared = async || {
        round += 1;
        let path = format!("/api/data/{round}-{}", rand::random::<u32>());
        one.get(&path).await;
        other.get(&path).await.header("cache-status").contains("detail=l2")
    };
    wait_until("what one has loaded the other finds in Redis", LIMIT, shared).await.unwrap();
    wait_until_cached(one).await;
}

/// That Redis was sent, those of scripts included.
async fn commands(admin: &mut redis::aio::MultiplexedConnection) -> i64 {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(admin).await.unwrap();
    let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<i64>().ok();
    stats.lines().filter_map(calls).sum()
}
