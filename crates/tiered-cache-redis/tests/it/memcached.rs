//! L3 on a real memcached.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tiered_cache::{Tier, TieredCache};

use crate::site::{Site, connect_patiently, is_used, keys, raw};
use crate::source::{metric, until};

/// A memcached of the test's own, gone with it.
struct Memcached {
    child: Child,
    address: String,
}

impl Memcached {
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

impl Drop for Memcached {
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
    let (memcached, redis, site) = (Memcached::start(), devkit::Redis::start().await.unwrap(), Site::new());
    until(|| std::net::TcpStream::connect(&memcached.address).is_ok()).await;
    let url = format!("memcache://{}", memcached.address);
    let replica = async || {
        let builder = site.builder(&connect_patiently(redis.url()), site.source.log.way());
        let cache = builder.memcached(&url, "cache").build();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_from_before_everything_was_forgotten_vouches_for_nothing() {
    let redis = devkit::Redis::start().await.unwrap();
    let _: () = raw(&redis, &["HSET", "state", "id", "1", "g1", "5"]).await;
    let acquire = include_str!("../../src/lua/acquire.lua");
    for (generation, vouches) in [("1.5", "77"), ("1.4", "0"), ("2.5", "0")] {
        let _: () = raw(&redis, &["DEL", "lease"]).await;
        let _: () = raw(&redis, &["SET", "mark", &format!("77 {generation}")]).await;
        let call = ["EVAL", acquire, "4", "state", "values", "lease", "mark", "7", "2000", "s1", "", "g1"];
        let (_, _, _, copy): (String, u64, String, String) = raw(&redis, &call).await;
        assert_eq!(copy, vouches, "{generation}");
    }
}
