//! The same promises on a real Redis, and a Redis that misbehaves.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use devkit::{Fault, FaultProxy};
use tiered_cache::{Read, Redis, RedisConfig, RemoteError, Tier, TieredCache, Write};
use tokio::runtime::Handle;

use crate::support::{Source, key, metric, policy, until};

pub fn connect(url: String) -> Redis {
    Redis::new(RedisConfig::new(url), Handle::current()).unwrap()
}

pub async fn cache(url: String) -> TieredCache {
    ready(connect(url)).await
}

/// On a busy machine an operation may take longer than 100 ms, and then a replica loads by itself.
pub fn connect_patiently(url: String) -> Redis {
    let config = RedisConfig { timeout: Duration::from_secs(10), ..RedisConfig::new(url) };
    Redis::new(config, Handle::current()).unwrap()
}

async fn patient_cache(url: String) -> TieredCache {
    ready(connect_patiently(url)).await
}

/// Soon a load is stored; on a busy machine not each one is in time.
async fn is_used(cache: &TieredCache, source: &Source) {
    for id in 1_000..1_050 {
        if read(cache, source, id).await.unwrap().stored {
            return;
        }
    }
    panic!("of fifty loads none was stored");
}

async fn ready(redis: Redis) -> TieredCache {
    let cache = TieredCache::builder(Handle::current()).redis(redis).build();
    until(|| cache.health().fence_open).await;
    cache
}

pub async fn get(cache: &TieredCache, source: &Source) -> tiered_cache::Hit {
    read(cache, source, 1).await.unwrap()
}

async fn read(cache: &TieredCache, source: &Source, id: u64) -> Result<tiered_cache::Hit, tiered_cache::CacheError> {
    let source = source.clone();
    cache.get_or_load(&key(id), &policy(), Read::Bounded, |cx| source.load(cx)).await
}

pub async fn put(cache: &TieredCache, source: &Source) -> u64 {
    let source = source.clone();
    cache.write(vec![key(1)], Write::Strict, |cx| source.commit(cx)).await.unwrap()
}

pub async fn raw<T: redis::FromRedisValue>(server: &devkit::Redis, cmd: &[&str]) -> T {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut all = redis::cmd(cmd[0]);
    all.arg(&cmd[1..]).query_async(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_goes_through_all_tiers_and_a_write_removes_it_from_all() {
    let server = devkit::Redis::start().await.unwrap();
    let source = Source::new();
    let (a, b) = (patient_cache(server.url()).await, patient_cache(server.url()).await);

    let loaded = get(&a, &source).await;
    assert_eq!((loaded.tier, loaded.stored), (Tier::Source, true));
    assert_eq!(get(&a, &source).await.tier, Tier::L1);
    let copied = get(&b, &source).await;
    assert_eq!((copied.tier, copied.entry.version), (Tier::L2, 1));
    assert_eq!(&copied.entry.etag[..], b"W/\"v1\"");
    assert!(copied.ttl <= Duration::from_secs(300));

    assert_eq!(put(&a, &source).await, 2);
    until(|| b.peek(&key(1), &policy()).is_none()).await;
    assert_eq!(get(&b, &source).await.entry.version, 2);
    assert_eq!(get(&a, &source).await.entry.version, 2);
    assert_eq!(source.loads(), 2);
}

/// T01 on Redis
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_refuses_a_value_read_before_a_write() {
    let server = devkit::Redis::start().await.unwrap();
    let source = Source::new();
    let (a, b) = (patient_cache(server.url()).await, patient_cache(server.url()).await);
    source.shut();
    let reader = {
        let (a, source) = (a.clone(), source.clone());
        tokio::spawn(async move { get(&a, &source).await })
    };
    source.read().await;
    put(&b, &source).await;
    source.open();

    let old = reader.await.unwrap();
    assert_eq!((old.entry.version, old.stored), (1, false));
    assert_eq!(metric(&a, r#"cache_fill_total{cache="user",tier="l2",result="lost"}"#), 1.0);
    assert_eq!(get(&a, &source).await.entry.version, 2);
}

/// T05 on Redis
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_on_three_replicas_cause_one_load_with_redis_between_them() {
    let server = devkit::Redis::start().await.unwrap();
    let source = Source::new();
    source.slow(Duration::from_millis(300));
    let replica = || patient_cache(server.url());
    let replicas = [replica().await, replica().await, replica().await];
    let readers: Vec<_> = (0..1_000)
        .map(|i| {
            let (cache, source) = (replicas[i % 3].clone(), source.clone());
            tokio::spawn(async move { get(&cache, &source).await.entry.version })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 1);
    }
    assert_eq!(source.loads(), 1);
}

/// T10, T30 on Redis
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_blocks_apart_and_refuses_older_versions() {
    let server = devkit::Redis::start().await.unwrap();
    let source = Source::new();
    let (a, b) = (patient_cache(server.url()).await, patient_cache(server.url()).await);
    let unknown = a
        .write(vec![key(1)], Write::Strict, |cx| async move {
            cx.committing();
            Err::<((), u64), _>(())
        })
        .await;
    assert!(unknown.is_err());
    put(&b, &source).await;
    assert!(!get(&b, &source).await.stored, "the first write's block is still there");

    let blocks: Vec<String> = raw(&server, &["KEYS", "cache:b:*"]).await;
    let ttl: i64 = raw(&server, &["PTTL", &blocks[0]]).await;
    assert!(ttl > 30_000, "{ttl}");
    let _: () = raw(&server, &["DEL", &blocks[0]]).await;
    source.set_version(1);
    until(|| b.health().flights == 0).await;
    assert!(!get(&b, &source).await.stored, "version 2 is known");
    source.set_version(2);
    assert!(get(&b, &source).await.stored);
}

/// T12 on Redis
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_made_again_and_the_bus_replayed() {
    let server = devkit::Redis::start().await.unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let source = Source::new();
    let (a, b) = (patient_cache(server.url()).await, cache(format!("redis://{}", proxy.addr())).await);
    get(&b, &source).await;
    proxy.set(Fault::Refuse);
    proxy.cut();
    for _ in 0..50 {
        put(&a, &source).await;
    }
    proxy.set(Fault::None);
    until(|| b.peek(&key(1), &policy()).is_none_or(|hit| hit.entry.version == 51)).await;
    until(|| b.health().fence_open && !b.health().breaker_open).await;
    assert_eq!(get(&b, &source).await.entry.version, 51);
    for reason in ["trimmed", "reset", "failover"] {
        assert_eq!(metric(&b, &format!(r#"cache_bus_gap_total{{reason="{reason}"}}"#)), 0.0, "{reason}");
    }
}

/// T13 on Redis
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushing_trimming_and_restarting_redis_are_noticed() {
    let server = devkit::Redis::start().await.unwrap();
    let source = Source::new();
    let (a, b) = (patient_cache(server.url()).await, patient_cache(server.url()).await);
    put(&a, &source).await;
    get(&b, &source).await;
    let seen = |reason: &str| metric(&b, &format!(r#"cache_bus_gap_total{{reason="{reason}"}}"#));

    let _: () = raw(&server, &["FLUSHALL"]).await;
    until(|| seen("reset") == 1.0).await;
    assert!(b.peek(&key(1), &policy()).is_none());

    put(&a, &source).await;
    get(&b, &source).await;
    let _: () = raw(&server, &["HINCRBY", "cache:bus:state", "sequence", "3"]).await;
    until(|| seen("trimmed") == 1.0).await;

    put(&a, &source).await;
    get(&b, &source).await;
    server.stop().await.unwrap();
    server.start_again().await.unwrap();
    until(|| seen("failover") + seen("reset") >= 2.0).await;
    until(|| b.health().fence_open && !b.health().breaker_open).await;
    assert_eq!(get(&b, &source).await.entry.version, 4);
}

/// T15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_costs_requests_little_and_is_used_again_when_it_thaws() {
    let server = devkit::Redis::start().await.unwrap();
    let source = Source::new();
    let a = cache(server.url()).await;
    get(&a, &source).await;
    server.freeze().unwrap();

    let mut slow = 0;
    for id in 2..200 {
        let begun = Instant::now();
        read(&a, &source, id).await.unwrap();
        slow += u32::from(begun.elapsed() > Duration::from_millis(90));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(slow <= 10, "{slow} requests waited for a frozen Redis");

    server.thaw().unwrap();
    let thawed = Instant::now();
    until(|| a.health().fence_open && !a.health().breaker_open).await;
    assert!(thawed.elapsed() < Duration::from_secs(10), "{:?}", thawed.elapsed());
    is_used(&a, &source).await;
}

/// T16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_replaced() {
    let server = devkit::Redis::start().await.unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let redis = connect(format!("redis://{}", proxy.addr()));
    until(|| redis.connections() == 4).await;
    // Those that are open fall silent; new ones would be answered.
    proxy.set(Fault::HalfOpen);
    let (mut timeouts, begun) = (0, Instant::now());
    while redis.connections() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "still the silent ones after {timeouts} timeouts");
        match redis.ping(Duration::from_millis(100)).await {
            Err(RemoteError::Timeout) => timeouts += 1,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    // The pings of the watchdog alone would take half a second to find it out.
    assert!(timeouts <= 3, "{timeouts}");
    let begun = Instant::now();
    assert!(matches!(redis.ping(Duration::from_secs(5)).await, Err(RemoteError::Unavailable)));
    assert!(begun.elapsed() < Duration::from_millis(50), "without a connection it fails at once");

    proxy.set(Fault::None);
    until(|| redis.connections() == 4).await;
    redis.ping(Duration::from_secs(5)).await.unwrap();
}

/// T16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_while_nobody_uses_it_is_replaced() {
    let server = devkit::Redis::start().await.unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let redis = connect(format!("redis://{}", proxy.addr()));
    until(|| redis.connections() == 4).await;
    let before = proxy.accepted();
    proxy.set(Fault::HalfOpen);
    until(|| proxy.accepted() >= before + 4 && redis.connections() == 4).await;
    redis.ping(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_do_not_grow_while_redis_is_a_black_hole() {
    let server = devkit::Redis::start().await.unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let source = Source::new();
    let a = cache(format!("redis://{}", proxy.addr())).await;
    proxy.set(Fault::BlackHole);
    let begun = Instant::now();
    let mut id = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        id += 1;
        read(&a, &source, id).await.unwrap();
        assert!(proxy.connections() <= 12, "{}", proxy.connections());
    }
    assert!(id > 50, "only {id} requests in 4 s");
    proxy.set(Fault::None);
    until(|| a.health().fence_open && !a.health().breaker_open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_at_the_start_the_cache_works_and_finds_it_later() {
    let server = devkit::Redis::start().await.unwrap();
    server.stop().await.unwrap();
    let source = Source::new();
    let a = TieredCache::builder(Handle::current()).redis(connect(server.url())).build();
    assert_eq!(get(&a, &source).await.tier, Tier::Source);
    server.start_again().await.unwrap();
    until(|| a.health().fence_open && !a.health().breaker_open).await;
    is_used(&a, &source).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_named_to_other_replicas_and_those_that_name_none_are_heard_too() {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let server = devkit::Redis::start().await.unwrap();
    let source = Source::new();
    let redis = || connect_patiently(server.url());
    let replica = |name, link| TieredCache::builder(Handle::current()).redis(redis()).links(name, link);
    let own = |_: &tracing::Span, _: &str| TOLD.lock().unwrap().push("its own".to_owned());
    let writer = replica(|| "the writer".to_owned(), own).build();
    let nameless = replica(String::new, |_, _| ()).build();
    let reader = replica(String::new, |_, cause| TOLD.lock().unwrap().push(cause.to_owned())).build();
    for cache in [&writer, &nameless, &reader] {
        until(|| cache.health().fence_open).await;
    }

    // As replicas that know of no names write them.
    put(&nameless, &source).await;
    let entries: Vec<(String, Vec<Vec<u8>>)> = raw(&server, &["XRANGE", "cache:bus", "-", "+"]).await;
    assert!(!entries.is_empty() && entries.iter().all(|(_, fields)| fields.len() == 6), "{entries:?}");
    put(&writer, &source).await;
    until(|| TOLD.lock().unwrap().len() >= 2).await;
    assert!(TOLD.lock().unwrap().iter().all(|cause| cause == "the writer"));
    assert_eq!(metric(&reader, r#"cache_bus_gap_total{reason="start"}"#), 1.0);
    assert_eq!(metric(&reader, r#"cache_bus_gap_total{reason="trimmed"}"#), 0.0);
}
