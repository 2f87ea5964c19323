//! Caches of one source on real Redis servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tiered_cache::{Builder, CacheError, Hit, Read, TieredCache};
use tiered_cache_redis::{Redis, RedisConfig};
use tokio::runtime::Handle;

use crate::source::{LogWay, Source, key, metric, policy, told_by_the_bus, until};

/// What the cache promises, whatever Redis does.
pub const BOUND: Duration = Duration::from_secs(1);

pub fn connect(url: String) -> Redis {
    Redis::new(RedisConfig::new(url), Handle::current()).unwrap()
}

/// On a busy machine an operation may take longer than 100 ms, and then a replica loads by itself.
pub fn connect_patiently(url: String) -> Redis {
    let config = RedisConfig { timeout: Duration::from_secs(10), ..RedisConfig::new(url) };
    Redis::new(config, Handle::current()).unwrap()
}

/// A source with its log, which caches on any Redis share.
#[derive(Clone)]
pub struct Site {
    pub source: Source,
}

impl Site {
    pub fn new() -> Self {
        Self { source: Source::new() }
    }

    /// A cache that waits for an answer of Redis as long as it takes, and is in use.
    pub async fn cache(&self, url: String) -> TieredCache {
        self.cache_of(connect_patiently(url), self.source.log.way()).await
    }

    pub async fn cache_of(&self, redis: Redis, log: LogWay) -> TieredCache {
        let cache = self.builder(&redis, log).build();
        until(|| is_used(&cache)).await;
        hears_the_bus(&cache).await;
        cache
    }

    /// A cache that may never get anywhere.
    pub fn begin(&self, url: String) -> TieredCache {
        self.builder(&connect_patiently(url), self.source.log.way()).build()
    }

    pub fn builder(&self, redis: &Redis, log: LogWay) -> Builder {
        let (remote, bus) = redis.tier("cache");
        TieredCache::builder(Handle::current()).remote(remote, bus).log(Arc::new(log)).probe_every(0)
    }

    pub async fn get(&self, cache: &TieredCache) -> Hit {
        self.read(cache, 1).await.unwrap()
    }

    pub async fn read(&self, cache: &TieredCache, id: u64) -> Result<Hit, CacheError> {
        let source = self.source.clone();
        cache.get_or_load(&key(id), &policy(), Read::Bounded, || source.load()).await
    }

    /// Commits a new version through a cache.
    pub async fn put(&self, cache: &TieredCache) -> u64 {
        let source = self.source.clone();
        cache.write(|| source.commit()).await.unwrap()
    }

    /// Soon a load is stored in Redis; on a busy machine not each one is in time.
    pub async fn fills(&self, cache: &TieredCache) {
        let before = filled(cache, "stored");
        for round in 0.. {
            self.read(cache, rand::random_range(1_000..u64::MAX)).await.unwrap();
            if filled(cache, "stored") > before {
                return;
            }
            assert!(round < 1_000, "of a thousand loads none was stored");
        }
    }

    /// What was written last is what everybody answers, from the bound on.
    pub async fn keeps_the_bound(&self, caches: &[&TieredCache], written: Instant, version: u64) {
        loop {
            let begun = written.elapsed();
            for cache in caches {
                let hit = self.get(cache).await;
                let old = hit.entry.version < version && begun > BOUND;
                assert!(!old, "version {} from {:?} after {begun:?}", hit.entry.version, hit.tier);
            }
            if begun > BOUND * 3 / 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The log is heard, and Redis takes writes.
pub fn is_used(cache: &TieredCache) -> bool {
    let health = cache.health();
    health.fence_open && health.unfit.is_none()
}

/// Waits until what it tells comes back, which shows that the bus is the one that belongs to its log.
pub async fn hears_the_bus(cache: &TieredCache) {
    let heard = || metric(cache, "cache_invalidate_visible_seconds_count");
    let before = heard();
    while heard() == before {
        cache.invalidate(&[key(0)]).await.unwrap();
        told_by_the_bus().await;
    }
}

/// How often the bus had lost something.
pub fn gaps(cache: &TieredCache) -> f64 {
    metric(cache, "cache_bus_gap_total")
}

/// What became of values for Redis.
pub fn filled(cache: &TieredCache, result: &str) -> f64 {
    metric(cache, &format!(r#"cache_fill_total{{cache="user",tier="l2",result="{result}"}}"#))
}

pub fn unfit(cache: &TieredCache) -> String {
    cache.health().unfit.as_deref().unwrap_or_default().to_owned()
}

pub async fn raw<T: redis::FromRedisValue>(server: &devkit::Redis, cmd: &[&str]) -> T {
    ask(&server.url(), cmd).await.unwrap()
}

pub async fn ask<T: redis::FromRedisValue>(url: &str, cmd: &[&str]) -> redis::RedisResult<T> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    redis::cmd(cmd[0]).arg(&cmd[1..]).query_async(&mut connection).await
}

/// The only key of the cache that ends so, such as `:state`, or is of a sort, such as `:v:`.
pub async fn the_key(server: &devkit::Redis, of: &str) -> String {
    let mut keys = keys(server, of).await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.remove(0)
}

pub async fn keys(server: &devkit::Redis, of: &str) -> Vec<String> {
    raw(server, &["KEYS", &format!("*{of}*")]).await
}

/// A line of `INFO`.
pub async fn info(server: &devkit::Redis, section: &str, name: &str) -> Option<String> {
    let all: String = raw(server, &["INFO", section]).await;
    all.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned()))
}

/// How many commands a server has carried out, those of scripts included.
pub async fn commands(server: &devkit::Redis) -> u64 {
    let all: String = raw(server, &["INFO", "commandstats"]).await;
    let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
    all.lines().filter_map(calls).sum()
}
