//! The bus: what is missed, what is replayed, and the end of a replica.

use std::time::Duration;

use tiered_cache::{Change, Changed, TieredCache};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, World, key, metric, until};

async fn pair() -> (World, Source, Replica, Replica) {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    (world, source, a, b)
}

fn gaps(replica: &Replica) -> f64 {
    metric(&replica.cache, "cache_bus_gap_total")
}

#[tokio::test(start_paused = true)]
async fn a_write_reaches_the_other_replicas_at_once() {
    let (_world, _source, a, b) = pair().await;
    b.get().await.unwrap();
    a.put().await;
    let begun = Instant::now();
    until(|| b.in_l1().is_none()).await;
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    assert_eq!(b.get().await.unwrap().entry.version, 2);
    assert_eq!(metric(&a.cache, "cache_invalidate_visible_seconds_count"), 1.0);
    assert_eq!(metric(&b.cache, r#"cache_l1_evictions_total{cause="removed"}"#), 1.0);
}

#[tokio::test(start_paused = true)]
async fn the_lags_are_the_times_since_bus_and_log_were_heard() {
    let (_world, _source, a, _b) = pair().await;
    assert!(a.cache.health().bus_lag <= Duration::from_millis(200));
    assert!(a.cache.health().log_lag <= Duration::from_millis(600));
    a.link.cut_bus(true);
    a.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let health = a.cache.health();
    for (name, lag) in [("bus", health.bus_lag), ("log", health.log_lag)] {
        assert!(lag >= Duration::from_millis(2_500) && lag < Duration::from_millis(3_600), "{name} {lag:?}");
        assert_eq!(metric(&a.cache, &format!("cache_{name}_lag_seconds")), lag.as_secs_f64());
    }
    let alone = TieredCache::builder(Handle::current()).build();
    assert_eq!((alone.health().bus_lag, alone.health().log_lag), (Duration::ZERO, Duration::ZERO));
}

/// T12
#[tokio::test(start_paused = true)]
async fn what_was_written_while_the_bus_was_cut_comes_by_the_log_and_is_replayed() {
    let (_world, _source, a, b) = pair().await;
    b.get().await.unwrap();
    let before = gaps(&b);
    b.link.cut_bus(true);
    for _ in 0..20 {
        let version = a.put().await;
        b.keeps_the_promise(Instant::now(), version, Duration::from_millis(1_150)).await;
        assert_eq!(b.in_l1(), Some(version), "it goes on with what it has");
    }
    b.link.cut_bus(false);
    until(|| metric(&b.cache, "cache_bus_reconnects_total") == 1.0).await;

    assert_eq!(b.in_l1(), Some(21), "the replay removes nothing that is new");
    assert_eq!(gaps(&b), before);
}

/// T13
#[tokio::test(start_paused = true)]
async fn a_trimmed_bus_is_noticed_and_nobody_is_old_for_it() {
    let (world, _source, a, b) = pair().await;
    b.get().await.unwrap();
    let before = gaps(&b);
    b.link.cut_bus(true);
    a.put().await;
    let written = Instant::now();
    world.trim();
    b.link.cut_bus(false);
    until(|| gaps(&b) == before + 1.0).await;
    b.keeps_the_promise(written, 2, Duration::from_secs(2)).await;
    assert_eq!(b.in_l1(), Some(2));
}

/// T13
#[tokio::test(start_paused = true)]
async fn a_flushed_tier_is_noticed_and_used_again() {
    let (world, source, a, b) = pair().await;
    b.get().await.unwrap();
    let before = gaps(&b);
    world.flush();
    until(|| gaps(&b) > before).await;
    assert_eq!(b.in_l1(), Some(1), "what the process has is right all the same");
    until(|| b.is_well() && world.cleaned() > 0).await;
    assert!(b.read(2, tiered_cache::Read::Bounded).await.unwrap().stored);
    source.plain_write();
    b.keeps_the_promise(Instant::now(), 2, Duration::from_secs(2)).await;
    a.put().await;
    b.keeps_the_promise(Instant::now(), 3, Duration::from_secs(2)).await;
}

/// T17
#[tokio::test(start_paused = true)]
async fn a_failover_of_the_tier_that_loses_invalidations_is_noticed_and_makes_nobody_old() {
    let (world, _source, a, b) = pair().await;
    b.get().await.unwrap();
    let (before, gaps_before) = (world.snapshot(), gaps(&b));
    a.put().await;
    until(|| b.in_l1().is_none()).await;
    world.fail_over_to(&before);
    assert!(world.has_value(key(1).hash()), "the old one is back");
    assert_eq!(b.get().await.unwrap().entry.version, 2);
    assert_eq!(a.get().await.unwrap().entry.version, 2);
    until(|| gaps(&b) == gaps_before + 1.0).await;

    // Also to those who come when nobody remembers the write.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let source = a.source.clone();
    let c = Replica::new(&world, &source).await;
    assert_eq!(c.get().await.unwrap().entry.version, 2);
}

/// A stream whose state is gone has no end that could be reached.
#[tokio::test(start_paused = true)]
async fn a_bus_that_lost_its_state_is_joined_again_and_not_asked_without_a_pause() {
    let (world, _source, a, b) = pair().await;
    for _ in 0..5 {
        a.put().await;
    }
    let before = gaps(&b);
    for _ in 0..10 {
        world.evict_any(0);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let joined = gaps(&b) - before;
    assert!((10.0..=40.0).contains(&joined), "{joined} gaps in 10 s");
    b.get().await.unwrap();
    a.put().await;
    until(|| b.in_l1().is_none()).await;
}

/// T31
#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_loads_and_writes_and_then_ends_everything() {
    let (world, source, a, _b) = pair().await;
    source.slow(Duration::from_millis(300));
    let reader = a.begin();
    until(|| source.loads() == 1).await;

    let begun = Instant::now();
    a.cache.shutdown(Duration::from_secs(5)).await;

    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(reader.await.unwrap().unwrap().stored);
    assert!(a.begin().await.unwrap().is_ok(), "L1 still answers");
    assert!(a.read(2, tiered_cache::Read::Bounded).await.is_err());
    assert!(a.write().await.is_err());
    assert!(!world.has_lease(key(1).hash()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(a.in_l1(), None, "nothing says any more whether it is right");
}

/// T31
#[tokio::test(start_paused = true)]
async fn shutdown_gives_up_after_its_grace_and_releases_leases() {
    let (world, source, a, _b) = pair().await;
    source.slow(Duration::from_secs(20));
    let reader = a.begin();
    until(|| source.loads() == 1).await;

    let begun = Instant::now();
    a.cache.shutdown(Duration::from_secs(2)).await;

    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(reader.await.unwrap().is_err());
    until(|| !world.has_lease(key(1).hash()) && metric(&a.cache, "cache_flights") == 0.0).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

/// Whatever the bus brings only ever takes away.
#[tokio::test(start_paused = true)]
async fn a_notice_of_a_whole_kind_removes_all_of_it_and_nothing_else() {
    let (world, _source, _a, b) = pair().await;
    b.get().await.unwrap();
    world.say(&[Change { what: Changed::Kind(tiered_cache::slot("team")), version: 0 }]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(b.in_l1(), Some(1));
    world.say(&[Change { what: Changed::Kind(tiered_cache::slot("user")), version: 0 }]);
    until(|| b.in_l1().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_failover_that_loses_a_cleaning_after_an_idle_time_makes_nobody_old() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    a.get().await.unwrap();
    until(|| a.is_well() && world.cleaned() > 0).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(world.has_value(key(1).hash()), "stored");
    let before = world.snapshot();
    source.plain_write();
    // The courier removes it.
    until(|| !world.has_value(key(1).hash())).await;
    world.fail_over_to(&before);
    assert!(world.has_value(key(1).hash()), "the old one is back");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(a.get().await.unwrap().entry.version, 2, "old value of L2 30 s after the write");
}
