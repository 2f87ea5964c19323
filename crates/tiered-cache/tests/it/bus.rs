//! The bus: what is missed, what is replayed, and what a replica does when it hears nothing.

use std::sync::Arc;
use std::time::Duration;

use tiered_cache::{Tier, TieredCache};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, Table, World, key, metric, until, write_through_outbox};

async fn pair() -> (World, Source, Replica, Replica) {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    (world, source, a, b)
}

/// Two replicas whose writes without Redis leave rows in one table.
async fn two_with_outbox(world: &World, source: &Source, table: &Table) -> (Replica, Replica) {
    let outbox = Arc::new(table.clone());
    let a = Replica::with(world, source, |builder| builder.outbox(outbox.clone())).await;
    let b = Replica::with(world, source, |builder| builder.outbox(outbox.clone())).await;
    (a, b)
}

fn gaps(replica: &Replica, reason: &str) -> f64 {
    metric(&replica.cache, &format!(r#"cache_bus_gap_total{{reason="{reason}"}}"#))
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
    assert_eq!(metric(&a.cache, "cache_invalidate_visible_seconds_count"), 2.0, "the block and its end");
    assert_eq!(metric(&b.cache, r#"cache_l1_evictions_total{cause="removed"}"#), 1.0);
}

#[tokio::test(start_paused = true)]
async fn the_bus_lag_is_the_time_since_it_was_heard() {
    let (_world, _source, a, _b) = pair().await;
    assert!(a.cache.health().bus_lag <= Duration::from_millis(200));
    a.link.cut_bus(true);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let lag = a.cache.health().bus_lag;
    assert!(lag >= Duration::from_millis(2_800) && lag < Duration::from_millis(3_200), "{lag:?}");
    assert_eq!(metric(&a.cache, "cache_bus_lag_seconds"), lag.as_secs_f64());
    let alone = TieredCache::builder(Handle::current()).build();
    assert_eq!(alone.health().bus_lag, Duration::ZERO);
}

/// T12
#[tokio::test(start_paused = true)]
async fn what_was_written_while_the_bus_was_cut_is_replayed() {
    let (_world, _source, a, b) = pair().await;
    a.get().await.unwrap();
    assert_eq!(b.get().await.unwrap().tier, Tier::L2);
    b.link.cut_bus(true);
    for _ in 0..50 {
        a.put().await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    // More than the fence later, B never answers with what it had.
    assert_eq!(b.get().await.unwrap().entry.version, 51);
    b.link.cut_bus(false);
    until(|| b.cache.health().fence_open).await;

    assert_eq!(b.get().await.unwrap().entry.version, 51);
    assert_eq!(metric(&b.cache, "cache_bus_reconnects_total"), 1.0);
    assert_eq!(gaps(&b, "start"), 1.0);
    assert_eq!(gaps(&b, "trimmed") + gaps(&b, "reset") + gaps(&b, "failover"), 0.0);
}

/// T13
#[tokio::test(start_paused = true)]
async fn a_trimmed_bus_is_noticed_and_everything_is_forgotten() {
    let (world, _source, a, b) = pair().await;
    b.get().await.unwrap();
    b.link.cut_bus(true);
    a.put().await;
    world.trim();
    b.link.cut_bus(false);
    until(|| gaps(&b, "trimmed") == 1.0).await;
    assert_eq!(b.in_l1(), None);
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

/// T13
#[tokio::test(start_paused = true)]
async fn a_flushed_data_set_is_noticed_and_everything_is_forgotten() {
    let (world, source, _a, b) = pair().await;
    b.get().await.unwrap();
    source.set_version(2);
    world.flush();
    until(|| gaps(&b, "reset") == 1.0).await;
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

/// T17
#[tokio::test(start_paused = true)]
async fn a_failover_that_loses_invalidations_is_noticed() {
    let (world, _source, a, b) = pair().await;
    a.put().await;
    until(|| b.in_l1().is_none()).await;
    b.get().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.lose_last(1);
    until(|| gaps(&b, "failover") == 1.0).await;
    assert_eq!(b.in_l1(), None);
}

/// T14
#[tokio::test(start_paused = true)]
async fn a_replica_that_hears_nothing_serves_no_old_copies() {
    let (_world, source, a, b) = pair().await;
    a.get().await.unwrap();
    assert_eq!(b.get().await.unwrap().tier, Tier::L2);
    b.link.set(Some(Down::Silent));
    let cut = Instant::now();
    a.put().await;

    until(|| b.in_l1().is_none()).await;
    assert!(cut.elapsed() <= Duration::from_millis(1_010), "{:?}", cut.elapsed());
    assert!(!b.cache.health().fence_open);
    let loads = source.loads();
    let hit = b.get().await.unwrap();
    assert_eq!((hit.entry.version, hit.tier), (2, Tier::Source));

    // Its own loads serve for five seconds, so that the source isn't asked for every request.
    for _ in 0..40 {
        b.get().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(source.loads(), loads + 1);
    a.put().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(b.get().await.unwrap().entry.version, 3);
}

/// Found by the service's history checker: a replica that was stopped and goes on can reach Redis, so its five seconds
/// don't apply.
#[tokio::test(start_paused = true)]
async fn a_replica_that_heard_nothing_for_a_while_serves_no_loads_from_before() {
    let (_world, source, a, b) = pair().await;
    assert_eq!(b.get().await.unwrap().tier, Tier::Source);
    b.link.shut("bus");
    a.put().await;
    tokio::time::sleep(Duration::from_millis(1_010)).await;

    assert_eq!(b.in_l1(), None);
    assert_eq!((b.get().await.unwrap().entry.version, source.loads()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_deaf_replica_joins_no_load_that_is_older_than_five_seconds() {
    let (_world, source, a, b) = pair().await;
    b.link.set(Some(Down::Refused));
    until(|| !b.cache.health().fence_open).await;
    source.slow(Duration::from_secs(20));
    drop(b.begin());
    until(|| source.loads() == 1).await;
    a.put().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    source.slow(Duration::ZERO);

    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

#[tokio::test(start_paused = true)]
async fn the_fence_keeps_stale_values_in_too() {
    let (_world, source, _a, b) = pair().await;
    source.ttl(Duration::from_secs(10));
    b.get().await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    source.fail(true);
    assert!(b.get().await.unwrap().stale.is_some());
    b.link.set(Some(Down::Silent));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(b.get().await.is_err(), "nobody knows whether it was invalidated since");
}

#[tokio::test(start_paused = true)]
async fn a_value_loaded_without_redis_is_forgotten_when_its_five_seconds_are_over() {
    let (_world, source, a, b) = pair().await;
    b.link.set(Some(Down::Refused));
    until(|| !b.cache.health().fence_open).await;
    b.get().await.unwrap();
    b.link.set(None);
    until(|| b.cache.health().fence_open).await;
    // A write that B can't hear of: the fence is open again, but the copy is from before.
    source.set_version(2);
    drop(a);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_after_failures_and_closes_by_itself() {
    let (_world, _source, a, _b) = pair().await;
    a.link.set(Some(Down::Silent));
    let mut id = 10;
    while !a.cache.health().breaker_open && a.cache.health().fence_open {
        a.read(id, tiered_cache::Read::Bounded).await.unwrap();
        id += 1;
    }
    assert!(id <= 13, "three failures are enough");
    assert_eq!(metric(&a.cache, r#"cache_breaker_state{tier="l2"}"#), 1.0);
    let begun = Instant::now();
    a.read(99, tiered_cache::Read::Bounded).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(5), "requests no longer wait for it");

    a.link.set(None);
    let back = Instant::now();
    until(|| !a.cache.health().breaker_open).await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert!(a.read(100, tiered_cache::Read::Bounded).await.unwrap().stored);
}

/// T11
#[tokio::test(start_paused = true)]
async fn an_available_write_without_redis_leaves_an_outbox_row_that_another_replica_delivers() {
    let (world, source, table) = (World::new(), Source::new(), Table::default());
    let (a, b) = two_with_outbox(&world, &source, &table).await;
    b.get().await.unwrap();
    a.link.set(Some(Down::Silent));

    let written = Instant::now();
    assert_eq!(write_through_outbox(&a.cache, &source, &table).await.unwrap(), 2);
    assert_eq!(table.len(), 1);

    until(|| table.len() == 0).await;
    assert_eq!(b.get().await.unwrap().entry.version, 2);
    assert!(written.elapsed() < Duration::from_secs(5), "{:?}", written.elapsed());
    assert!(!world.has_lease(key(1).hash()));
}

/// T11, the other half
#[tokio::test(start_paused = true)]
async fn after_an_outage_nothing_is_served_before_the_outbox_is_empty() {
    let (world, source, table) = (World::new(), Source::new(), Table::default());
    let (a, b) = two_with_outbox(&world, &source, &table).await;
    b.get().await.unwrap();
    for replica in [&a, &b] {
        replica.link.set(Some(Down::Refused));
    }
    until(|| !b.cache.health().fence_open).await;
    write_through_outbox(&a.cache, &source, &table).await.unwrap();
    // The writer dies, and the database can't be asked when Redis comes back.
    drop(a);
    *table.down.lock().unwrap() = true;
    b.link.set(None);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!b.cache.health().fence_open);
    assert!(world.has_value(key(1).hash()));
    assert_eq!(b.get().await.unwrap().entry.version, 2, "L2 still has the old one, and isn't asked");

    *table.down.lock().unwrap() = false;
    until(|| b.cache.health().fence_open).await;
    assert_eq!(table.len(), 0);
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

/// SPEC: "Postgres down: cached reads go on."
#[tokio::test(start_paused = true)]
async fn with_the_database_down_and_redis_well_cached_reads_go_on() {
    let (world, source, table) = (World::new(), Source::new(), Table::default());
    let (a, b) = two_with_outbox(&world, &source, &table).await;
    a.get().await.unwrap();
    *table.down.lock().unwrap() = true;
    source.fail(true);
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(a.cache.health().fence_open);
        assert_eq!(a.get().await.unwrap().tier, Tier::L1);
    }
    assert_eq!(b.get().await.unwrap().tier, Tier::L2);
    assert_eq!(b.get().await.unwrap().tier, Tier::L1);
}

/// A look into the outbox from before a further outage says nothing about what was written in it.
#[tokio::test(start_paused = true)]
async fn an_outbox_seen_empty_before_a_second_outage_does_not_open_the_fence_after_it() {
    let (world, source, table) = (World::new(), Source::new(), Table::default());
    let (a, b) = two_with_outbox(&world, &source, &table).await;
    b.get().await.unwrap();
    for replica in [&a, &b] {
        replica.link.set(Some(Down::Refused));
    }
    until(|| !b.cache.health().fence_open).await;
    // B's bus answers once and the outbox is empty; then everything is gone again.
    *table.cut.lock().unwrap() = Some(b.link.clone());
    b.link.set(None);
    until(|| table.cut.lock().unwrap().is_none()).await;
    write_through_outbox(&a.cache, &source, &table).await.unwrap();
    drop(a);
    *table.down.lock().unwrap() = true;
    tokio::time::sleep(Duration::from_secs(3)).await;
    b.link.set(None);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!b.cache.health().fence_open);
    assert_eq!(b.get().await.unwrap().entry.version, 2, "L2 still has the old one, and isn't asked");
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
    assert!(!world.has_lease(key(1).hash()));
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
    until(|| !world.has_lease(key(1).hash()) && a.cache.health().flights == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
