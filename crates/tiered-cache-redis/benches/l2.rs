//! What a hit in Redis costs through the whole cache, beside a bare `GET`: `cargo bench -p tiered-cache-redis`.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may fail")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tiered_cache::{Body, CacheKey, ChangeLog, LoadError, Loaded, LogRead, LogReader, Policy, Read, Tier, TieredCache};
use tiered_cache_redis::{Redis, RedisConfig};
use tokio::runtime::Handle;

async fn load() -> Result<Loaded, LoadError> {
    let body = Body { bytes: Bytes::from(vec![b'x'; 1024]), etag: Bytes::from_static(b"W/\"v1\"") };
    Ok(Loaded { value: Some(body), version: 1 })
}

/// A source that never changes.
struct Still(u64);

#[async_trait]
impl ChangeLog for Still {
    fn reader(&self) -> Box<dyn LogReader> {
        Box::new(Self(0))
    }

    async fn append(&self, _keys: &[CacheKey]) -> Result<(), LoadError> {
        Ok(())
    }

    async fn wake(&self) -> Result<(), LoadError> {
        Ok(())
    }
}

#[async_trait]
impl LogReader for Still {
    async fn next(&mut self) -> Result<LogRead, LoadError> {
        tokio::time::sleep(Duration::from_millis(500 * self.0.min(1))).await;
        self.0 += 1;
        let (sent_at, anew_since) = (tokio::time::Instant::now(), (self.0 == 1).then_some(0));
        Ok(LogRead { sent_at, identity: 1, anew_since, position: self.0, changes: Vec::new(), readers: 1, newest: 1 })
    }

    async fn leave(&mut self) {}
}

#[tokio::main]
async fn main() {
    let server = devkit::Redis::start().await.unwrap();
    let config = RedisConfig { timeout: Duration::from_secs(2), ..RedisConfig::new(server.url()) };
    let redis = Redis::new(config, Handle::current()).unwrap();
    // No L1: every hit comes from Redis.
    let (remote, bus) = redis.tier("cache");
    let cache = TieredCache::builder(Handle::current()).log(Arc::new(Still(0))).remote(remote, bus);
    let cache = cache.l1(0).probe_every(0).build();
    while cache.health().unfit.is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (policy, key) = (Policy::new("user"), CacheKey::builder("user").param("id", 1).build());
    while !cache.get_or_load(&key, &policy, Read::Bounded, load).await.is_ok_and(|hit| hit.tier == Tier::L2) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut set = redis::cmd("SET");
    redis.query::<()>(set.arg("plain").arg(vec![b'x'; 1024])).await.unwrap();
    let mut get = redis::cmd("GET");
    get.arg("plain");
    let (mut tiered, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..5_000 {
        let begun = Instant::now();
        black_box(cache.get_or_load(&key, &policy, Read::Bounded, load).await.unwrap());
        tiered.push(begun.elapsed());
        let begun = Instant::now();
        black_box(redis.query::<Vec<u8>>(&get).await.unwrap());
        bare.push(begun.elapsed());
    }
    tiered.sort_unstable();
    bare.sort_unstable();
    let (tiered, bare) = (tiered[tiered.len() / 2], bare[bare.len() / 2]);
    println!("L2 hit p50 {tiered:?}, bare GET p50 {bare:?}");
}
