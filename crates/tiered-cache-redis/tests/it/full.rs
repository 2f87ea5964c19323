//! A Redis that is full: it keeps its limit, or what it pushes out makes nobody stale.

use std::time::{Duration, Instant};

use tiered_cache::{Tier, TieredCache};

use crate::site::{Site, filled, is_used, keys, raw, unfit};
use crate::source::until;

const LIMIT: &str = "8mb";
const LOWER: &str = "7mb";

async fn used(server: &devkit::Redis) -> f64 {
    crate::site::info(server, "memory", "used_memory").await.unwrap().trim().parse().unwrap()
}

async fn limit(server: &devkit::Redis, policy: &str) {
    let _: () = raw(server, &["CONFIG", "SET", "maxmemory-policy", policy]).await;
    let _: () = raw(server, &["CONFIG", "SET", "maxmemory", LIMIT]).await;
}

/// Fills it to the brim with something else.
async fn fill(server: &devkit::Redis) {
    let full = async || {
        let script =
            "for i = 1, 1000 do redis.call('SET', 'filler:' .. math.random(1, 1e9), string.rep('x', 1000)) end";
        crate::site::ask::<()>(&server.url(), &["EVAL", script, "0"]).await.is_err()
    };
    devkit::wait_until("it is full", Duration::from_secs(60), full).await.unwrap();
    // Room that a closed connection leaves isn't room for more.
    let _: () = raw(server, &["CONFIG", "SET", "maxmemory", LOWER]).await;
}

async fn empty(server: &devkit::Redis) {
    let _: () = raw(server, &["CONFIG", "SET", "maxmemory", "0"]).await;
}

/// Many reads of things that nobody has asked for before.
async fn read_fresh(site: &Site, cache: &TieredCache, from: u64, count: u64) {
    for id in from..from + count {
        assert_eq!(site.read(cache, id).await.unwrap().tier, Tier::Source);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_full_keeps_its_limit_and_costs_the_service_nothing_but_redis() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    site.get(&a).await;
    site.get(&b).await;
    limit(&server, "noeviction").await;
    fill(&server).await;
    let before = used(&server).await;
    read_fresh(&site, &a, 10_000, 5_000).await;
    read_fresh(&site, &b, 20_000, 5_000).await;
    for _ in 0..2_000 {
        site.put(&a).await;
    }
    let (version, written) = (site.put(&a).await, Instant::now());
    site.keeps_the_bound(&[&a, &b], written, version).await;
    site.source.plain_write();
    until(|| unfit(&a).contains("OOM") && unfit(&b).contains("OOM")).await;
    assert_eq!(site.get(&a).await.tier, Tier::L1);
    let after = used(&server).await;
    assert!((after / before - 1.0).abs() < 0.01, "from {before} to {after} bytes");

    empty(&server).await;
    until(|| is_used(&a) && is_used(&b)).await;
    site.fills(&a).await;
    let (version, written) = (site.put(&b).await, Instant::now());
    site.keeps_the_bound(&[&a, &b], written, version).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_full_before_the_start_keeps_its_limit_and_is_used_when_there_is_room() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    limit(&server, "noeviction").await;
    fill(&server).await;
    let a = site.begin(server.url());
    until(|| a.health().fence_open && unfit(&a).contains("OOM")).await;
    // Connections and the texts of scripts take some room.
    site.put(&a).await;
    let before = used(&server).await;
    read_fresh(&site, &a, 10_000, 1_000).await;
    site.put(&a).await;
    assert_eq!(crate::site::keys(&server, "{cache}").await, Vec::<String>::new());
    let after = used(&server).await;
    assert!((after / before - 1.0).abs() < 0.01, "from {before} to {after} bytes");
    empty(&server).await;
    until(|| is_used(&a)).await;
    site.fills(&a).await;
}

/// What follows a script's first write is let through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_script_begins_with_a_write_that_a_full_redis_refuses() {
    let server = devkit::Redis::start().await.unwrap();
    let _: () = raw(&server, &["HSET", "state", "id", "1", "courier", "7"]).await;
    let _: () = raw(&server, &["SET", "held", "7 1."]).await;
    limit(&server, "noeviction").await;
    fill(&server).await;
    let four = ["4", "state", "values", "lease", "mark"];
    let held = ["4", "state", "values", "held", "mark"];
    let two = ["2", "state", "other"];
    let three = ["3", "state", "other", "bus"];
    let five = ["5", "state", "bus", "values", "lease", "mark"];
    let calls: [(&str, &[&str], &[&str]); 6] = [
        (include_str!("../../src/lua/acquire.lua"), &four, &["7", "2000", "s1", "", "g1"]),
        (include_str!("../../src/lua/invalidate.lua"), &five, &["7", "changes", "", "100", "1000", "", "9", "25"]),
        (
            include_str!("../../src/lua/clean.lua"),
            &five,
            &["7", "5", "1", "0", "", "3", "told", "25", "9", "99", "4", "6", "0"],
        ),
        (
            include_str!("../../src/lua/pulse.lua"),
            &three,
            &["8", "0", "1", "5", "2000", "3", "1000", "1000", "1000", "1"],
        ),
        (include_str!("../../src/lua/leave.lua"), &two, &["7", "0"]),
        (include_str!("../../src/lua/fill.lua"), &held, &["7", "s1", "entry", "1000", "1", "g1", "5", "1000"]),
    ];
    for (text, keys, args) in calls {
        let call = [&["EVAL", text], keys, args].concat();
        let refused = crate::site::ask::<redis::Value>(&server.url(), &call).await.unwrap_err();
        assert_eq!(refused.code(), Some("OOM"), "{text}");
    }
    empty(&server).await;
    for (text, keys, args) in calls {
        let _: redis::Value = raw(&server, &[&["EVAL", text], keys, args].concat()).await;
    }
    let stored: Vec<String> = raw(&server, &["HKEYS", "values"]).await;
    assert_eq!(stored, ["s1", "generation", "version"], "with room each comes to its end");
}

/// Whatever is pushed out: values, leases, marks, the state, the bus.
async fn under_pressure(pushes: &str) {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    limit(&server, pushes).await;
    let begun = Instant::now();
    let mut written: Vec<(Instant, u64)> = Vec::new();
    let mut found = 0;
    for round in 0_u64.. {
        let script = "for i = 1, ARGV[1] do redis.call('SET', 'filler:' .. math.random(1, 1e9), string.rep('x', 1000), 'EX', 9) end";
        drop(crate::site::ask::<()>(&server.url(), &["EVAL", script, "0", "3000"]).await);
        // What is used as often as the cache's own keys is seldom pushed out.
        let own = keys(&server, "{cache}").await;
        if let Some(one) = own.get(rand::random_range(0..own.len().max(1))) {
            let _: () = raw(&server, &["DEL", one]).await;
        }
        let version = if round % 3 == 0 { site.source.plain_write().version } else { site.put(&a).await };
        written.push((Instant::now(), version));
        for cache in [&a, &b, &a, &b] {
            let begun = Instant::now();
            let hit = site.get(cache).await;
            found += usize::from(hit.tier == Tier::L2);
            let past = written.iter().filter(|(at, _)| *at + crate::site::BOUND < begun);
            let least = past.map(|(_, version)| *version).max().unwrap_or(0);
            assert!(hit.entry.version >= least, "{pushes}: {} from {:?} after {least}", hit.entry.version, hit.tier);
            let id = rand::random_range(1..50);
            site.read(cache, id).await.unwrap();
        }
        // Long enough, and not before anything was found there.
        if begun.elapsed() > Duration::from_secs(if found > 0 { 8 } else { 60 }) {
            break;
        }
    }
    let evicted = crate::site::info(&server, "stats", "evicted_keys").await;
    assert_ne!(evicted.as_deref(), Some("0"), "{pushes}");
    let version = site.put(&a).await;
    site.keeps_the_bound(&[&a, &b], Instant::now(), version).await;
    empty(&server).await;
    until(|| is_used(&a) && is_used(&b)).await;
    site.fills(&a).await;
    assert!(found > 0, "{pushes}: nothing was found in Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_pushes_out_what_has_a_life_makes_nobody_stale() {
    under_pressure("volatile-lfu").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_pushes_out_anything_makes_nobody_stale() {
    under_pressure("allkeys-lru").await;
}

/// Ids can be made up without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_ids_that_do_not_exist_leaves_nothing_that_outlives_what_it_is_for() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let a = site.cache(server.url()).await;
    site.source.absent(true);
    let before = used(&server).await;
    read_fresh(&site, &a, 10_000, 10_000).await;
    assert!(filled(&a, "stored") > 9_000.0);
    let each = (used(&server).await - before) / 10_000.0;
    assert!(each < 320.0, "{each} bytes");
    for of in [":v:", ":l:", ":m:"] {
        for its in keys(&server, of).await {
            let left: i64 = raw(&server, &["PTTL", &its]).await;
            assert!((0..=12_000).contains(&left) || left == -2, "{its} lives for {left} ms");
        }
    }
    assert_eq!(keys(&server, ":m:").await.len(), 0);
}
