//! L3 on a real memcached, beside a real Redis.

#![cfg(feature = "all-tests")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

#[expect(dead_code, reason = "the tests of Redis use more of it")]
#[path = "../../../tiered-cache-redis/tests/it/site.rs"]
mod site;
#[expect(dead_code, reason = "the cache's own tests use more of it")]
#[path = "../../../tiered-cache/tests/source/mod.rs"]
mod source;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiered_cache::{Tier, TieredCache};
use tiered_cache_memcached::Memcached;

use crate::site::{Site, connect_patiently, is_used, keys, raw};
use crate::source::{metric, until};

/// A memcached of the test's own, gone with it.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        let port = devkit::free_port().unwrap().to_string();
        let program = devkit::find("memcached").unwrap_or_else(|| panic!("install memcached to run this test"));
        let child = Command::new(program)
            .args(["-l", "127.0.0.1", "-p", &port, "-U", "0", "-u", "nobody"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn stored(cache: &TieredCache, result: &str) -> f64 {
    metric(cache, &format!(r#"cache_fill_total{{cache="user",tier="l3",result="{result}"}}"#))
}

/// T32
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_used_for_as_long_as_redis_has_its_mark() {
    let (memcached, redis, site) = (Server::start(), devkit::Redis::start().await.unwrap(), Site::new());
    until(|| std::net::TcpStream::connect(&memcached.address).is_ok()).await;
    let url = format!("memcache://{}", memcached.address);
    let replica = async || {
        let builder = site.builder(&connect_patiently(redis.url()), site.source.log.way());
        let cache = builder.l3(Arc::new(Memcached::new(&url, "cache"))).build();
        until(|| is_used(&cache)).await;
        cache
    };
    // Without the value in Redis, what a new replica finds.
    let finds = async || {
        for values in keys(&redis, ":v:").await {
            let _: () = raw(&redis, &["DEL", &values]).await;
        }
        site.get(&replica().await).await
    };
    let mut copied = Tier::Source;
    for _ in 0..50 {
        // On a busy machine not each one keeps memcached's 50 ms.
        copied = finds().await.tier;
        if copied == Tier::L3 {
            break;
        }
    }
    assert_eq!(copied, Tier::L3);

    let a = replica().await;
    let marks = async || keys(&redis, ":m:").await.len();
    assert_eq!(marks().await, 1);
    site.put(&a).await;
    assert_eq!(marks().await, 0);
    let found = finds().await;
    assert_eq!((found.tier, found.entry.version), (Tier::Source, 2));
    let (version, written) = (site.source.plain_write().version, Instant::now());
    let gone = async || marks().await == 0;
    devkit::wait_until("the courier removes the mark", Duration::from_secs(60), gone).await.unwrap();
    site.keeps_the_bound(&[&a], written, version).await;
    assert_eq!(finds().await.entry.version, version);

    let _: () = raw(&redis, &["FLUSHALL"]).await;
    until(|| is_used(&a)).await;
    assert_eq!(finds().await.tier, Tier::Source);

    drop(memcached);
    for id in 100..150 {
        assert!(site.read(&a, id).await.unwrap().stored, "its death is survived");
    }
    assert!(stored(&a, "error") > 0.0);
}
