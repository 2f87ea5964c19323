//! A Redis that lost what it had, and more than one of them.

use std::time::{Duration, Instant};

use devkit::{Fault, FaultProxy};
use redis::streams::{StreamId, StreamRangeReply};
use tiered_cache::{Committed, Tier, TieredCache};

use crate::site::{Site, commands, connect_patiently, gaps, is_used, keys, raw, the_key};
use crate::source::way::Down;
use crate::source::{key, policy, until};

/// Someone writes by Redis and someone past it, and everybody keeps the promise.
async fn goes_on(site: &Site, a: &TieredCache, b: &TieredCache) {
    let (version, written) = (site.put(a).await, Instant::now());
    site.keeps_the_bound(&[a, b], written, version).await;
    let (version, written) = (site.source.plain_write().version, Instant::now());
    site.keeps_the_bound(&[b, a], written, version).await;
}

/// T13 on Redis
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_flushed_or_restarted_empty_makes_nobody_stale_and_is_used_again() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    site.get(&b).await;
    let before = gaps(&b);
    let _: () = raw(&server, &["FLUSHALL"]).await;
    goes_on(&site, &a, &b).await;
    until(|| gaps(&b) > before).await;
    until(|| is_used(&a) && is_used(&b)).await;
    site.fills(&a).await;

    let before = gaps(&b);
    server.stop().await.unwrap();
    let (version, written) = (site.put(&a).await, Instant::now());
    server.start_again().await.unwrap();
    site.keeps_the_bound(&[&a, &b], written, version).await;
    goes_on(&site, &a, &b).await;
    until(|| gaps(&b) > before).await;
    until(|| is_used(&a) && is_used(&b)).await;
    site.fills(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_or_the_bus_alone_may_be_lost_and_nothing_runs_in_circles() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    goes_on(&site, &a, &b).await;
    let (state, bus) = (the_key(&server, ":state").await, the_key(&server, ":bus").await);
    let losses: [&[&str]; 6] = [
        &["DEL", &state],
        &["DEL", &bus],
        &["XTRIM", &bus, "MAXLEN", "0"],
        &["HDEL", &state, "sequence"],
        &["HINCRBY", &state, "sequence", "3"],
        &["HDEL", &state, "id", "cleaned"],
    ];
    for loss in losses {
        let _: redis::Value = raw(&server, loss).await;
        // With no write that could heal it.
        let before = commands(&server).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let commands = commands(&server).await - before;
        assert!(commands < 400, "{loss:?}: {commands} commands of two replicas in two seconds");
        goes_on(&site, &a, &b).await;
        until(|| is_used(&a) && is_used(&b)).await;
        crate::site::hears_the_bus(&b).await;
        site.fills(&a).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_bus_lost_is_noticed_by_each_of_its_signs() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    let (state, bus) = (the_key(&server, ":state").await, the_key(&server, ":bus").await);
    let losses: [&[&str]; 4] = [
        &["HINCRBY", &state, "sequence", "3"],
        &["HINCRBY", &state, "sequence", "-2"],
        &["HSET", &state, "id", "123"],
        &["XTRIM", &bus, "MAXLEN", "0"],
    ];
    for loss in losses {
        goes_on(&site, &a, &b).await;
        crate::site::hears_the_bus(&b).await;
        let before = gaps(&b);
        let _: redis::Value = raw(&server, loss).await;
        if loss[0] == "XTRIM" {
            // Who goes on reading has lost nothing. Who comes back can't tell.
            let _: u64 = raw(&server, &["CLIENT", "KILL", "TYPE", "normal"]).await;
        }
        until(|| gaps(&b) > before).await;
    }
}

/// A clock that was set back, perhaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_courier_whose_time_never_ends_is_replaced() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let a = site.cache(server.url()).await;
    let state = the_key(&server, ":state").await;
    site.get(&a).await;
    assert_eq!(keys(&server, ":v:").await.len(), 1);
    let _: u64 = raw(&server, &["HSET", &state, "courier", "1", "until", "9000000000000"]).await;
    site.source.plain_write();
    let cleaned = async || keys(&server, ":v:").await.is_empty();
    devkit::wait_until("the old value is removed", Duration::from_secs(20), cleaned).await.unwrap();
}

/// As while `REDIS_URL` is changed replica by replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_caches_on_different_servers_tell_each_other_by_the_log() {
    let (one, two) = (devkit::Redis::start().await.unwrap(), devkit::Redis::start().await.unwrap());
    let site = Site::new();
    let (a, b) = (site.cache(one.url()).await, site.cache(two.url()).await);
    for _ in 0..2 {
        goes_on(&site, &a, &b).await;
        goes_on(&site, &b, &a).await;
    }
    // L2 of each is cleaned, too.
    let version = site.put(&a).await;
    let written = Instant::now();
    let fresh = site.cache(two.url()).await;
    site.keeps_the_bound(&[&fresh, &a, &b], written, version).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_read_the_log_lives_by_the_redis_that_all_share() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let log = site.source.log.way();
    let a = site.cache_of(connect_patiently(server.url()), log.clone()).await;
    let b = site.cache(server.url()).await;
    // It has read the log since it hears the bus.
    goes_on(&site, &a, &b).await;
    log.cut(Some(Down::Refused));
    // The others must first hear that it is blind.
    until(|| a.health().log_lag > Duration::from_secs(1) && a.health().fence_open).await;
    let cut = Instant::now();
    while cut.elapsed() < Duration::from_secs(3) {
        assert!(a.health().fence_open, "{:?}: {:?}", cut.elapsed(), a.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    goes_on(&site, &b, &a).await;
    assert!(a.health().fence_open);
    log.cut(None);
    until(|| a.health().log_error.is_none()).await;
    goes_on(&site, &a, &b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_read_the_log_serves_nothing_when_another_one_uses_another_redis() {
    let (one, two) = (devkit::Redis::start().await.unwrap(), devkit::Redis::start().await.unwrap());
    let site = Site::new();
    let log = site.source.log.way();
    let a = site.cache_of(connect_patiently(one.url()), log.clone()).await;
    let b = site.cache(two.url()).await;
    site.get(&a).await;
    // The log has counted both.
    goes_on(&site, &a, &b).await;
    log.cut(Some(Down::Refused));
    let (version, written) = (site.put(&b).await, Instant::now());
    site.keeps_the_bound(&[&a, &b], written, version).await;
    assert!(!a.health().fence_open);
    assert!(a.peek(&key(1), &policy()).is_none());
}

/// One that ended is no stand-in for one that went elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_went_to_another_redis_is_missed_on_the_first() {
    let (one, two) = (devkit::Redis::start().await.unwrap(), devkit::Redis::start().await.unwrap());
    let site = Site::new();
    let ways = [site.source.log.way(), site.source.log.way()];
    let a = site.cache_of(connect_patiently(one.url()), ways[0].clone()).await;
    let b = site.cache_of(connect_patiently(one.url()), ways[1].clone()).await;
    let c = site.cache(one.url()).await;
    c.shutdown(Duration::ZERO).await;
    let moved = site.cache(two.url()).await;
    goes_on(&site, &a, &moved).await;
    goes_on(&site, &b, &moved).await;
    ways.iter().for_each(|way| way.cut(Some(Down::Refused)));
    // Nobody on the first server sees the log any more.
    until(|| [&a, &b].iter().all(|cache| cache.health().log_lag > Duration::from_secs(2))).await;
    let (version, written) = (site.put(&moved).await, Instant::now());
    site.keeps_the_bound(&[&a, &b, &moved], written, version).await;
    assert!(!a.health().fence_open && !b.health().fence_open);
}

/// With the database gone for all, the one that read furthest tells the others what they haven't read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_one_replica_has_read_of_the_log_is_told_to_the_others() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let ways = [site.source.log.way(), site.source.log.way()];
    let a = site.cache_of(connect_patiently(server.url()), ways[0].clone()).await;
    let b = site.cache_of(connect_patiently(server.url()), ways[1].clone()).await;
    goes_on(&site, &a, &b).await;
    site.get(&a).await;
    site.get(&b).await;
    ways[1].cut(Some(Down::Refused));
    let (version, written) = (site.source.plain_write().version, Instant::now());
    until(|| a.peek(&key(1), &policy()).is_none()).await;
    ways[0].cut(Some(Down::Refused));
    let old = || b.peek(&key(1), &policy()).is_some_and(|hit| hit.entry.version < version);
    while written.elapsed() < Duration::from_secs(5) {
        let begun = written.elapsed();
        assert!(!old() || begun < crate::site::BOUND, "{begun:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until(|| b.health().fence_open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_has_more_to_tell_than_it_keeps_makes_redis_forget_everything() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let (a, b) = (site.cache(format!("redis://{}", proxy.addr())).await, site.cache(server.url()).await);
    site.get(&b).await;
    let state = the_key(&server, ":state").await;
    proxy.set(Fault::Refuse);
    proxy.cut();
    until(|| a.health().unfit.is_some()).await;
    let changed: Vec<_> = (100..1_101).map(|id| (key(id), 7)).collect();
    let commit = || async { Ok::<_, std::convert::Infallible>(Committed { value: (), changed }) };
    a.write(commit).await.unwrap();
    proxy.set(Fault::None);
    until(|| is_used(&a)).await;

    let counters: Vec<String> = raw(&server, &["HKEYS", &state]).await;
    assert_eq!(counters.iter().filter(|field| field.starts_with('g')).count(), 256, "{counters:?}");
    until(|| b.peek(&key(1), &policy()).is_none()).await;
    assert_eq!(site.get(&b).await.tier, Tier::Source, "what is stored isn't found any more");
}

/// However much it is: a long entry for each write would let the bus outgrow its Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_write_changed_is_told_in_entries_of_bounded_size() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, log) = (site.cache(server.url()).await, site.source.log.way());
    let b = site.cache_of(connect_patiently(server.url()), log.clone()).await;
    goes_on(&site, &a, &b).await;
    let bus = the_key(&server, ":bus").await;
    let sizes = async || {
        let entries: StreamRangeReply = raw(&server, &["XRANGE", &bus, "-", "+"]).await;
        let bytes = |entry: &StreamId| entry.get::<Vec<u8>>("c").unwrap().len();
        entries.ids.iter().map(bytes).collect::<Vec<_>>()
    };
    let before = sizes().await.len();
    let changed: Vec<_> = (100..190).map(|id| (key(id), 7)).collect();
    let commit = || async { Ok::<_, std::convert::Infallible>(Committed { value: (), changed }) };
    a.write(commit).await.unwrap();
    assert_eq!(sizes().await[before..], [1_000, 1_000, 250]);

    // The courier tells a blind one what the log says.
    site.source.log.fill(90);
    log.cut(Some(Down::Refused));
    let told = async || sizes().await.iter().rev().take(3).sum::<usize>() >= 2_000;
    devkit::wait_until("the log is told", Duration::from_secs(20), told).await.unwrap();
    assert!(sizes().await.iter().all(|size| *size <= 1_000), "{:?}", sizes().await);
    goes_on(&site, &a, &b).await;
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
