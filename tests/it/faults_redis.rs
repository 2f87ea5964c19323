//! Redis away in every way it can be, while requests go on.

use std::time::Duration;

use devkit::{Fault, FaultProxy, Redis, wait_until};
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{LIMIT, Load, Sql, TestApp, USERS};

/// Enough for what one process keeps in memory to settle, and then some.
const SLACK_BYTES: f64 = 64.0 * 1024.0 * 1024.0;

/// A service whose Redis stands behind a proxy.
struct World {
    app: TestApp,
    redis: Redis,
    proxy: FaultProxy,
}

impl World {
    async fn start() -> Self {
        let redis = Redis::start().await.unwrap();
        let proxy = FaultProxy::start(redis.address()).await.unwrap();
        let app = TestApp::builder()
            .env("REDIS_URL", format!("redis://127.0.0.1:{}", proxy.port()))
            .env("REDIS_TIMEOUT", "100ms")
            .start()
            .await;
        Sql::connect(&app.database.as_ref().unwrap().url()).await.add_users(USERS).await;
        app.wait_for_health("healthy").await;
        Self { app, redis, proxy }
    }

    /// Connections and all else that the service has open.
    async fn open_files(&self) -> f64 {
        self.app.sum("process_open_fds", &[]).await
    }

    async fn resident_bytes(&self) -> f64 {
        self.app.sum("process_resident_memory_bytes", &[]).await
    }

    /// Values that loads have put into Redis.
    async fn fills(&self) -> f64 {
        self.app.sum("cache_fill_total", &[r#"tier="l2""#, r#"result="stored""#]).await
    }

    async fn wait_until_used(&self) {
        let before = self.fills().await;
        wait_until("Redis is filled again", LIMIT, async || self.fills().await > before).await.unwrap();
    }

    /// The whole story: requests go on, the health says so, and all is as it was soon after.
    async fn lives_through(&self, fault: impl AsyncFnOnce(), end: impl AsyncFnOnce()) {
        let load = Load::start(&self.app);
        load.wait_for_more(50).await;
        self.wait_until_used().await;
        let (connections, bytes) = (self.proxy.connections(), self.resident_bytes().await);
        let files = self.open_files().await;

        fault().await;
        self.app.wait_for_health("degraded").await;
        assert_eq!(self.app.get("/health").await.status, 200);
        assert_eq!(self.app.get("/health/ready").await.status, 200);
        load.wait_for_more(200).await;
        let (files_during, bytes_during) = (self.open_files().await, self.resident_bytes().await);

        end().await;
        self.app.wait_for_health("healthy").await;
        self.wait_until_used().await;
        load.wait_for_more(50).await;
        load.assert_no_failure().await;
        assert!(files_during <= files + 8.0, "{files} open files grew to {files_during}");
        let back = async || self.proxy.connections() <= connections;
        wait_until("no more connections than before", LIMIT, back).await.unwrap();
        let bytes_after = self.resident_bytes().await;
        for now in [bytes_during, bytes_after] {
            assert!(now < bytes * 2.0 + SLACK_BYTES, "memory grew from {bytes} to {now} bytes");
        }
        assert_eq!(self.app.sum("panics_total", &[]).await, 0.0);
    }
}

#[tokio::test]
async fn requests_go_on_while_redis_is_stopped() {
    let world = World::start().await;
    let stop = async || world.redis.stop().await.unwrap();
    let start = async || world.redis.start_again().await.unwrap();
    world.lives_through(stop, start).await;
}

#[tokio::test]
async fn requests_go_on_while_redis_is_frozen() {
    let world = World::start().await;
    let freeze = async || world.redis.freeze().unwrap();
    let thaw = async || world.redis.thaw().unwrap();
    world.lives_through(freeze, thaw).await;
}

#[tokio::test]
async fn requests_go_on_while_redis_is_a_black_hole() {
    let world = World::start().await;
    let begin = async || world.proxy.set(Fault::BlackHole);
    let end = async || world.proxy.set(Fault::None);
    world.lives_through(begin, end).await;
}

#[tokio::test]
async fn requests_go_on_while_redis_refuses_connections() {
    let world = World::start().await;
    let begin = async || {
        world.proxy.set(Fault::Refuse);
        world.proxy.cut();
    };
    let end = async || world.proxy.set(Fault::None);
    world.lives_through(begin, end).await;
}

#[tokio::test]
async fn half_open_connections_to_redis_are_replaced() {
    let world = World::start().await;
    let load = Load::start(&world.app);
    load.wait_for_more(50).await;
    world.wait_until_used().await;
    let connections = world.proxy.connections();
    let accepted = world.proxy.accepted();

    world.proxy.set(Fault::HalfOpen);

    let replaced = async || world.proxy.accepted() >= accepted + connections as u64;
    wait_until("every connection is made anew", LIMIT, replaced).await.unwrap();
    world.app.wait_for_health("healthy").await;
    world.wait_until_used().await;
    load.assert_no_failure().await;
    let back = async || world.proxy.connections() <= connections;
    wait_until("the old connections are closed", LIMIT, back).await.unwrap();
}

#[tokio::test]
async fn cut_connections_to_redis_are_replaced() {
    let world = World::start().await;
    let load = Load::start(&world.app);
    load.wait_for_more(50).await;

    for _ in 0..5 {
        world.proxy.cut();
        load.wait_for_more(20).await;
    }

    world.wait_until_used().await;
    load.assert_no_failure().await;
}

#[tokio::test]
async fn a_service_starts_without_redis_and_uses_it_later() {
    let redis = Redis::start().await.unwrap();
    redis.stop().await.unwrap();
    let app = TestApp::builder().env("REDIS_URL", redis.url()).env("REDIS_TIMEOUT", "100ms").start().await;
    app.wait_for_health("degraded").await;
    assert_eq!(app.get("/health").await.status, 200);
    assert_eq!(app.get("/api/data/1").await.status, 200);

    redis.start_again().await.unwrap();

    app.wait_for_health("healthy").await;
    let stored = async || app.write(Method::PUT, "/api/cache/a", &json!(1)).await.status == 200;
    wait_until("values are stored", LIMIT, stored).await.unwrap();
}

#[tokio::test]
async fn plain_values_are_a_problem_without_redis_and_work_again_later() {
    let world = World::start().await;
    let value = json!({"a": [1, "ä"]});
    let stored = async || world.app.write(Method::PUT, "/api/cache/a", &value).await.status == 200;
    wait_until("the value is stored", LIMIT, stored).await.unwrap();

    world.proxy.set(Fault::BlackHole);
    let away = timeout(Duration::from_secs(5), world.app.get("/api/cache/a")).await.expect("REDIS_TIMEOUT is 100 ms");
    away.problem(503);
    assert_ne!(away.header("retry-after"), "");
    world.app.write(Method::PUT, "/api/cache/a", &value).await.problem(503);
    world.app.delete("/api/cache/a").await.problem(503);

    world.proxy.set(Fault::None);
    let read = async || {
        let answer = world.app.get("/api/cache/a").await;
        answer.status == 200 && answer.json()["value"] == value
    };
    wait_until("the value is read again", LIMIT, read).await.unwrap();
}

#[tokio::test]
async fn a_slow_redis_slows_no_hit_in_the_process() {
    let world = World::start().await;
    assert_eq!(world.app.get("/api/users/1").await.status, 200);
    let from_l1 = async || world.app.get("/api/users/1").await.header("cache-status").contains("detail=l1");
    wait_until("the user is in L1", LIMIT, from_l1).await.unwrap();

    world.proxy.set(Fault::Latency(Duration::from_millis(60)));

    let (mut hits, mut took) = (0, Duration::ZERO);
    for _ in 0..300 {
        let started = std::time::Instant::now();
        // On a machine that stands still for a second it is loaded anew.
        if from_l1().await {
            hits += 1;
            took += started.elapsed();
        }
    }
    assert!(hits >= 200, "{hits} hits of 300 reads");
    assert!(took < hits * Duration::from_millis(40), "{hits} hits took {took:?}");
}
