//! `/health` and the probes.

use devkit::wait_until;
use serde_json::{Value, json};

use crate::support::{CountingProxy, LIMIT, TestApp};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The first report after the first round of checks.
async fn report(app: &TestApp) -> Value {
    let checked = async || !app.get("/health").await.text.contains("not checked yet");
    wait_until("the first checks are done", LIMIT, checked).await.unwrap();
    app.get("/health").await.json()
}

#[tokio::test]
async fn health_tells_all_about_a_healthy_service() {
    let app = TestApp::start().await;
    let health = report(&app).await;
    assert_eq!(keys(&health), ["cache", "memory", "pools", "services", "status", "timestamp", "version"]);
    assert_eq!(health["status"], "healthy");
    assert!(health["timestamp"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["services"], json!({"database": "healthy", "redis": "healthy"}));
    assert_eq!(keys(&health["pools"]), ["postgres", "redis"]);
    assert_eq!(keys(&health["pools"]["postgres"]), ["free_size", "pool_size", "status"]);
    assert_eq!(health["pools"]["postgres"]["status"], "healthy");
    assert_eq!(keys(&health["pools"]["redis"]), ["connections", "status"]);
    assert_eq!(health["pools"]["redis"]["status"], "healthy");
    assert!(health["pools"]["redis"]["connections"].as_u64().unwrap() >= 1);
    assert_eq!(keys(&health["memory"]), ["limit_bytes", "percent", "used_bytes"]);
    let answer = app.get("/health").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn pools_show_their_connections() {
    let app = TestApp::builder().env("DATABASE_POOL_MIN", "3").start().await;
    let full = async || app.get("/health").await.json()["pools"]["postgres"]["pool_size"].as_u64() >= Some(3);
    wait_until("the least number of connections is open", LIMIT, full).await.unwrap();
    let idle = async || app.get("/health").await.json()["pools"]["postgres"]["free_size"].as_u64() >= Some(3);
    wait_until("they are idle", LIMIT, idle).await.unwrap();
}

#[tokio::test]
async fn without_redis_health_says_disabled() {
    let app = TestApp::builder().without_redis().start().await;
    let health = report(&app).await;
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["services"], json!({"database": "healthy", "redis": "disabled"}));
    assert_eq!(health["pools"]["redis"], json!({"status": "disabled", "connections": 0}));
}

#[tokio::test]
async fn a_redis_that_answers_but_is_of_no_use_is_told_in_its_own_words() {
    // No replica of it is there, so it refuses to write; it has no room; nobody may do what the cache needs.
    for (what, words) in [
        (vec!["CONFIG", "SET", "min-replicas-to-write", "1"], "NOREPLICAS"),
        (vec!["CONFIG", "SET", "maxmemory", "1"], "OOM"),
        (vec!["ACL", "SETUSER", "default", "-eval", "-evalsha"], "permission"),
    ] {
        let redis = devkit::Redis::start().await.unwrap();
        let client = redis::Client::open(redis.url()).unwrap();
        let mut admin = client.get_multiplexed_async_connection().await.unwrap();
        let () = redis::cmd(what[0]).arg(&what[1..]).query_async(&mut admin).await.unwrap();
        let app = TestApp::builder().env("REDIS_URL", redis.url()).start().await;
        app.wait_for_health("degraded").await;
        let health = app.get("/health").await.json();
        assert!(health["services"]["redis"].as_str().unwrap().contains(words), "{health}");
        assert_eq!(health["cache"]["fence"], "open", "what this process has is right without it");
        let told = |line: &Value| line["level"] == "WARN" && line.to_string().contains(words);
        app.wait_for_line("a line says so", told).await;
        for id in 0..20 {
            assert_eq!(app.get(&format!("/api/data/{id}")).await.status, 200);
        }
        let unfit = |line: &&Value| line["level"] == "WARN" && line["part"].is_string();
        assert_eq!(app.log().iter().filter(unfit).count(), 1, "once, while it lasts: {:?}", app.log());
    }
}

#[tokio::test]
async fn each_probe_answers_in_a_word() {
    let app = TestApp::start().await;
    for (path, word) in [("live", "alive"), ("ready", "ready"), ("startup", "started")] {
        let answer = app.get(&format!("/health/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"));
        assert_eq!(answer.json(), json!({"status": word}));
        let head = app.send(app.request(reqwest::Method::HEAD, &format!("/health/{path}"))).await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    }
}

#[tokio::test]
async fn while_the_database_is_awaited_the_service_is_alive_but_not_started() {
    let proxy = devkit::FaultProxy::start("127.0.0.1:1".parse().unwrap()).await.unwrap();
    proxy.set(devkit::Fault::Refuse);
    let url = format!("postgres://plinth@{}/plinth", proxy.addr());
    let app = TestApp::builder().env("DATABASE_URL", url).without_waiting().start().await;
    assert_eq!(app.get("/health/live").await.status, 200);
    for path in ["/health/ready", "/health/startup"] {
        let answer = app.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (503, json!({"status": "starting"})));
    }
}

#[tokio::test]
async fn short_memory_takes_the_service_out_of_the_balancer() {
    let app = TestApp::builder().env("MEMORY_LIMIT", "1MiB").without_waiting().start().await;
    let started = async || app.get("/health/startup").await.status == 200;
    wait_until("the service has started", LIMIT, started).await.unwrap();
    let short = async || app.get("/health/ready").await.status == 503;
    wait_until("it isn't ready", LIMIT, short).await.unwrap();
    assert_eq!(app.get("/health/ready").await.json(), json!({"status": "short of memory"}));
    let health = app.get("/health").await;
    assert_eq!((health.status.as_u16(), health.header("content-type")), (503, "application/json"));
    let health = health.json();
    assert_eq!(health["status"], "unhealthy");
    assert_eq!(health["services"], json!({"database": "healthy", "redis": "healthy"}));
    assert_eq!(health["memory"]["limit_bytes"], 1 << 20);
    assert!(health["memory"]["used_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(health["memory"]["percent"].as_f64().unwrap() > 90.0);
    assert_eq!(app.get("/health/live").await.status, 200, "a restart would not help");
}

#[tokio::test]
async fn with_room_under_its_memory_limit_the_service_is_ready() {
    let app = TestApp::builder().env("MEMORY_LIMIT", "8GiB").start().await;
    let memory = report(&app).await["memory"].clone();
    let (used, percent) = (memory["used_bytes"].as_f64().unwrap(), memory["percent"].as_f64().unwrap());
    assert!(used > 0.0 && (percent - used * 100.0 / f64::from(8_u32) / f64::from(1 << 30)).abs() < 0.01, "{memory}");
}

#[tokio::test]
async fn a_flood_of_probes_asks_neither_database_nor_redis() {
    const PROBES: u64 = 2000;
    let database = crate::support::database().await;
    let server = devkit::shared_postgres().await.unwrap();
    let redis = devkit::Redis::start().await.unwrap();
    let to_database = CountingProxy::start(server.address()).await;
    let to_redis = CountingProxy::start(redis.address()).await;
    let app = TestApp::builder()
        .env("DATABASE_URL", database.url_through(to_database.port))
        .env("REDIS_URL", format!("redis://127.0.0.1:{}", to_redis.port))
        .start()
        .await;
    report(&app).await;
    let before = (to_database.sent(), to_redis.sent());
    assert!(before.0 > 0 && before.1 > 0, "the proxies stand between");
    let began = std::time::Instant::now();
    for number in 0..PROBES {
        let path = ["/health", "/health/ready", "/health/live", "/health/startup"][(number % 4) as usize];
        assert_eq!(app.get(path).await.status, 200);
    }
    // What the background sends meanwhile: checks each two seconds, the bus' reads each half second or so.
    let background = 2000 * (began.elapsed().as_secs() + 2);
    for (server, bytes) in [("database", to_database.sent() - before.0), ("Redis", to_redis.sent() - before.1)] {
        // Even the shortest command has more than 10 bytes.
        assert!(bytes < PROBES * 10 / 4 + background, "{bytes} bytes to the {server}");
    }
}
