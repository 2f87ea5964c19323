//! One load for many, and loads that fail, hang or are abandoned.

use std::time::Duration;

use tiered_cache::{CacheError, Read, StaleReason, Tier};
use tokio::time::Instant;

use crate::support::{Replica, Source, World, body, key, metric, until};

/// T04
#[tokio::test(start_paused = true)]
async fn a_thousand_readers_of_one_cold_key_cause_one_load() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    source.slow(Duration::from_millis(100));

    let readers: Vec<_> = (0..1_000).map(|_| a.begin()).collect();
    let mut collapsed = 0;
    for reader in readers {
        let hit = reader.await.unwrap().unwrap();
        assert_eq!(&body(&hit)[..], b"commit 1");
        collapsed += usize::from(hit.collapsed);
    }

    assert_eq!(source.loads(), 1);
    assert_eq!(collapsed, 999);
    assert_eq!(metric(&a.cache, r#"cache_coalesced_total{cache="user"}"#), 999.0);
}

/// T05
#[tokio::test(start_paused = true)]
async fn a_thousand_readers_on_three_cold_replicas_cause_one_load() {
    let (world, source) = (World::new(), Source::new());
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::new(&world, &source).await);
    }
    source.slow(Duration::from_millis(500));

    let readers: Vec<_> = (0..1_000).map(|i| replicas[i % 3].begin()).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap().entry.version, 1);
    }

    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_longer_than_the_lease_keeps_it() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    source.slow(Duration::from_millis(4_500));

    let (one, other) = tokio::join!(a.get(), b.get());

    assert_eq!((one.unwrap().entry.version, other.unwrap().entry.version), (1, 1));
    assert_eq!(source.loads(), 1);
}

/// T06
#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_away_neither_stops_nor_restarts_the_load() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    source.slow(Duration::from_millis(500));
    let begun = Instant::now();
    let leader = a.begin();
    until(|| source.loads() == 1).await;
    let follower = a.begin();
    tokio::time::sleep(Duration::from_millis(50)).await;

    leader.abort();
    let hit = follower.await.unwrap().unwrap();

    assert!(begun.elapsed() < Duration::from_millis(700));
    assert_eq!(source.loads(), 1);
    assert!(hit.stored);
    assert!(world.has_value(key(1).hash()));
}

/// T07
#[tokio::test(start_paused = true)]
async fn a_killed_lease_holder_is_replaced_after_two_seconds() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    source.shut();
    let killed = a.begin();
    source.read().await;
    // Its process is gone: no renewal arrives any more.
    a.link.shut("renew");
    source.open();
    a.link.shut("fill");
    drop(killed);

    let begun = Instant::now();
    let hit = b.get().await.unwrap();

    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(hit.stored);
    assert_eq!(source.loads(), 2);
}

/// T08
#[tokio::test(start_paused = true)]
async fn a_failed_load_tells_everyone_once_and_frees_the_lease() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    source.slow(Duration::from_millis(50));
    source.fail(true);

    let readers: Vec<_> = (0..100).map(|_| a.begin()).collect();
    for reader in readers {
        assert!(matches!(reader.await.unwrap(), Err(CacheError::Load(_))));
    }
    assert!(matches!(a.get().await, Err(CacheError::Load(_))), "the memo answers");
    assert_eq!(source.loads(), 1);
    assert!(!world.has_lease(key(1).hash()));

    source.fail(false);
    until(|| metric(&a.cache, "cache_flights") == 0.0).await;
    assert_eq!(a.get().await.unwrap().entry.version, 1);
}

/// T08
#[tokio::test(start_paused = true)]
async fn a_panicking_load_is_an_error_and_leaves_nothing_behind() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    source.panic(true);
    let readers: Vec<_> = (0..10).map(|_| a.begin()).collect();
    for reader in readers {
        assert!(matches!(reader.await.unwrap(), Err(CacheError::Panicked)));
    }
    assert!(!world.has_lease(key(1).hash()));
    source.panic(false);
    until(|| metric(&a.cache, "cache_flights") == 0.0).await;
    assert_eq!(a.get().await.unwrap().entry.version, 1);
}

/// T18
#[tokio::test(start_paused = true)]
async fn a_stale_value_stands_in_for_a_failing_source_which_is_asked_once_per_window() {
    let (world, source) = (World::new(), Source::new());
    let mut a = Replica::new(&world, &source).await;
    a.policy.l2_ttl = Duration::from_secs(10);
    a.get().await.unwrap();
    source.fail(true);
    tokio::time::sleep(Duration::from_secs(30)).await;

    for _ in 0..100 {
        let hit = a.get().await.unwrap();
        assert_eq!(hit.stale, Some(StaleReason::SourceFailed));
        assert_eq!(hit.ttl, Duration::ZERO);
        assert!(hit.age >= Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(source.loads(), 2, "one load, and one try");
    let line = r#"cache_stale_served_total{cache="user",reason="source_failed"}"#;
    assert_eq!(metric(&a.cache, line), 100.0);

    tokio::time::sleep(Duration::from_secs(5)).await;
    a.get().await.unwrap();
    assert_eq!(source.loads(), 3);

    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(a.get().await.is_err(), "fail-safe ends");
}

/// T19
#[tokio::test(start_paused = true)]
async fn a_slow_source_costs_the_soft_timeout_while_there_is_a_stale_value() {
    let (world, source) = (World::new(), Source::new());
    let mut a = Replica::new(&world, &source).await;
    a.policy.soft_timeout = Duration::from_millis(100);
    a.policy.l2_ttl = Duration::from_secs(10);
    a.get().await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    source.set_version(2);
    source.slow(Duration::from_secs(2));

    let begun = Instant::now();
    let hit = a.get().await.unwrap();
    assert_eq!(hit.stale, Some(StaleReason::SourceSlow));
    assert_eq!(hit.entry.version, 1);
    assert!(begun.elapsed() < Duration::from_millis(200));
    let next = Instant::now();
    a.get().await.unwrap();
    assert!(next.elapsed() < Duration::from_millis(5), "the second one needn't wait again");

    until(|| metric(&a.cache, "cache_flights") == 0.0).await;
    let fresh = a.get().await.unwrap();
    assert_eq!((fresh.entry.version, fresh.stale), (2, None));
    assert_eq!(source.loads(), 2);
}

/// T20
#[tokio::test(start_paused = true)]
async fn without_a_stale_value_the_hard_timeout_answers_and_the_load_goes_on() {
    let (world, source) = (World::new(), Source::new());
    let mut a = Replica::new(&world, &source).await;
    a.policy.hard_timeout = Duration::from_secs(1);
    source.slow(Duration::from_secs(2));

    let begun = Instant::now();
    assert!(matches!(a.get().await, Err(CacheError::Timeout)));
    assert!(begun.elapsed() < Duration::from_millis(1_100));

    until(|| metric(&a.cache, "cache_flights") == 0.0).await;
    let hit = a.get().await.unwrap();
    assert_eq!((hit.tier, hit.stale), (Tier::L1, None));
    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_gate_bounds_loads_and_refuses_beyond_its_queue() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::with(&world, &source, |builder| builder.load_gate(2, 3, Duration::from_secs(60))).await;
    source.slow(Duration::from_secs(1));

    let readers: Vec<_> = (0..10)
        .map(|id| {
            let a = a.clone();
            tokio::spawn(async move { a.read(id, Read::Bounded).await })
        })
        .collect();
    until(|| source.loads() == 2).await;
    assert_eq!(a.cache.health().loads, 2);
    let mut refused = 0;
    for reader in readers {
        refused += usize::from(matches!(reader.await.unwrap(), Err(CacheError::Overloaded { .. })));
    }

    assert_eq!((refused, source.loads()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_full_gate_serves_stale_values_first() {
    let (world, source) = (World::new(), Source::new());
    let mut a = Replica::with(&world, &source, |builder| builder.load_gate(1, 0, Duration::from_secs(60))).await;
    a.policy.l2_ttl = Duration::from_secs(10);
    a.get().await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    source.slow(Duration::from_secs(60));
    let other = a.clone();
    let busy = tokio::spawn(async move { other.read(2, Read::Bounded).await });
    until(|| source.loads() == 2).await;

    let hit = a.get().await.unwrap();

    assert_eq!(hit.stale, Some(StaleReason::Overloaded));
    busy.abort();
}

#[tokio::test(start_paused = true)]
async fn readers_of_a_version_get_it_or_learn_that_the_source_is_behind() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    b.get().await.unwrap();
    // A write that this cache never hears of.
    source.set_version(5);

    assert_eq!(b.read(1, Read::Version(5)).await.unwrap().entry.version, 5);
    assert_eq!(a.read(1, Read::Version(5)).await.unwrap().tier, Tier::L2);
    let behind = b.read(1, Read::Version(6)).await;
    assert!(matches!(behind, Err(CacheError::VersionNotReached { found: 5 })), "{behind:?}");
}

#[tokio::test(start_paused = true)]
async fn readers_of_a_version_that_is_never_reached_share_loads() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    source.slow(Duration::from_millis(100));
    let readers: Vec<_> = (0..100)
        .map(|_| {
            let a = a.clone();
            tokio::spawn(async move { a.read(1, Read::Version(9)).await })
        })
        .collect();
    for reader in readers {
        let behind = reader.await.unwrap();
        assert!(matches!(behind, Err(CacheError::VersionNotReached { found: 1 })), "{behind:?}");
    }
    assert!(source.loads() <= 2, "{} loads", source.loads());
}

/// Nobody was given such a version: the source needn't be asked.
#[tokio::test(start_paused = true)]
async fn a_version_far_above_everything_is_refused_without_a_load() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    for wanted in [2_000_000, u64::MAX] {
        let refused = a.read(1, Read::Version(wanted)).await;
        assert!(matches!(refused, Err(CacheError::VersionNotReached { found: 1 })), "{refused:?}");
    }
    assert_eq!((source.loads(), world.count_of("get")), (0, 0));
    assert!(a.read(1, Read::Version(1_000)).await.is_err());
    assert_eq!(source.loads(), 1, "it may have been given since");
}
