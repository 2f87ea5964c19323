//! The log: followed by every replica, and what becomes of it.

use std::time::Duration;

use tiered_cache::{Read, Tier, WhenBlind};
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, World, key, metric, serial, until};

async fn pair() -> (World, Source, Replica, Replica) {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    (world, source, a, b)
}

fn forgotten(replica: &Replica) -> f64 {
    metric(&replica.cache, "cache_log_gap_total")
}

#[tokio::test(start_paused = true)]
async fn a_change_by_plain_sql_is_seen_by_all_within_a_second_and_removed_from_the_tier() {
    let (world, source, a, b) = pair().await;
    for n in 0..10 {
        a.get().await.unwrap();
        b.get().await.unwrap();
        tokio::time::sleep(Duration::from_millis(70 * n)).await;
        let version = source.plain_write().version;
        let written = Instant::now();
        for replica in [&a, &b] {
            replica.keeps_the_promise(written, version, Duration::from_millis(1_200)).await;
            assert_eq!(replica.in_l1(), Some(version));
        }
    }
    assert_eq!(world.count_of("stored"), 11, "once for each version");
}

/// The courier removed it there, though nobody remembers why.
#[tokio::test(start_paused = true)]
async fn what_plain_sql_changed_is_gone_from_the_tier_when_nobody_remembers_it() {
    let (world, source, a, b) = pair().await;
    a.get().await.unwrap();
    source.plain_write();
    until(|| !world.has_value(key(1).hash())).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_everything_is_seen_by_all_within_a_second_also_in_the_tier() {
    let (world, source, a, b) = pair().await;
    for id in 1..50 {
        a.read(id, Read::Bounded).await.unwrap();
        b.read(id, Read::Bounded).await.unwrap();
    }
    let row = source.plain_write_all();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let c = Replica::new(&world, &source).await;
    for id in 1..50 {
        for replica in [&c, &b, &a] {
            assert_eq!(replica.read(id, Read::Bounded).await.unwrap().entry.version, row.version);
        }
    }
    // And it is cached again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let loads = source.loads();
    for id in 1..50 {
        assert_eq!(b.read(id, Read::Bounded).await.unwrap().tier, Tier::L1);
    }
    let d = Replica::new(&world, &source).await;
    // It takes the change for as new as its first read of the log.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!((d.read(7, Read::Bounded).await.unwrap().tier, source.loads()), (Tier::L2, loads));
}

#[tokio::test(start_paused = true)]
async fn what_is_invalidated_by_hand_goes_through_the_log() {
    let (world, source, a, b) = pair().await;
    b.get().await.unwrap();
    source.set_version(2);
    a.link.set(Some(Down::Refused));
    a.cache.invalidate(&[key(1)]).await.unwrap();
    let told = Instant::now();
    b.keeps_the_promise(told, 2, Duration::from_secs(2)).await;
    assert_eq!(b.in_l1(), Some(2));
    until(|| a.is_well() || world.cleaned() > 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_that_the_log_cannot_take_fails_and_removes_nothing() {
    let (world, _source, a, b) = pair().await;
    a.get().await.unwrap();
    b.get().await.unwrap();
    a.log.way().refuse("append", true);

    assert!(a.cache.invalidate(&[key(1)]).await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert_eq!((a.in_l1(), b.in_l1()), (Some(1), Some(1)));
    assert!(world.has_value(key(1).hash()));
}

/// A failover that lost commits, a restore: what was known from before may not be believed.
#[tokio::test(start_paused = true)]
async fn a_log_that_begins_anew_without_the_last_commits_makes_forget_everything() {
    let (world, source, a, b) = pair().await;
    let kept = source.plain_write();
    let lost = [a.put().await, a.put().await];
    for replica in [&a, &b] {
        assert_eq!(replica.get().await.unwrap().entry.version, lost[1]);
    }
    source.log.begin_anew(2);
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;

    for replica in [&a, &b] {
        assert_eq!(serial(&replica.get().await.unwrap()), kept.serial);
        assert_eq!(forgotten(replica), 2.0, "at the start, and now");
    }
    // The same versions are given again, to other things.
    assert_eq!(a.put().await, lost[0]);
    b.keeps_the_promise(begun, lost[0], Duration::from_secs(2)).await;
    let row = source.log.row();
    let c = Replica::new(&world, &source).await;
    for replica in [&c, &b, &a] {
        assert_eq!(serial(&replica.get().await.unwrap()), row.serial);
    }
}

/// What was loaded before, and comes to be stored after.
#[tokio::test(start_paused = true)]
async fn a_value_read_before_the_log_began_anew_is_stored_nowhere_after_it() {
    let (world, source, a, b) = pair().await;
    a.put().await;
    source.shut();
    let reader = b.begin();
    source.read().await;
    source.log.begin_anew(1);
    until(|| forgotten(&b) == 2.0).await;
    let after = b.begin();
    until(|| source.loads() == 2).await;
    source.open();

    assert_eq!(after.await.unwrap().unwrap().entry.version, 1, "it didn't join the load from before");
    let old = reader.await.unwrap().unwrap();

    assert_eq!((old.entry.version, old.stored), (2, false));
    assert_eq!(b.get().await.unwrap().entry.version, 1);
    assert_eq!(a.get().await.unwrap().entry.version, 1);
    assert_eq!(world.count_of("lost"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_its_place_in_the_log_forgets_everything() {
    let (_world, source, a, b) = pair().await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    b.link.cut_bus(true);
    a.put().await;
    source.log.prune();
    let written = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    b.log.cut(None);

    b.keeps_the_promise(written, 2, Duration::from_secs(2)).await;
    assert_eq!((forgotten(&b), b.in_l1()), (2.0, Some(2)));
}

/// It can't know which of them concern it.
#[tokio::test(start_paused = true)]
async fn a_replica_that_comes_late_takes_from_the_tier_only_what_it_can_judge() {
    let (world, source, a, _b) = pair().await;
    a.get().await.unwrap();
    // The tier isn't cleaned any more.
    a.link.refuse("clean", true);
    _b.link.refuse("clean", true);
    source.plain_write();
    tokio::time::sleep(Duration::from_secs(1)).await;
    source.log.prune();
    assert!(world.has_value(key(1).hash()));

    let c = Replica::new(&world, &source).await;
    c.link.refuse("clean", true);
    assert_eq!(c.get().await.unwrap().entry.version, 2);
}

#[tokio::test(start_paused = true)]
async fn more_changes_than_are_remembered_give_the_tier_up_as_a_whole() {
    let (world, source, a, b) = pair().await;
    a.get().await.unwrap();
    b.get().await.unwrap();
    source.plain_write();
    source.log.fill(110_000);
    tokio::time::sleep(Duration::from_secs(2)).await;

    assert_eq!(a.get().await.unwrap().entry.version, 2);
    let c = Replica::new(&world, &source).await;
    assert_eq!(c.get().await.unwrap().entry.version, 2);
    assert!(a.read(9, Read::Bounded).await.unwrap().stored, "and it is used again");
}

/// T14
#[tokio::test(start_paused = true)]
async fn a_replica_that_hears_nothing_serves_nothing_cached() {
    let (_world, source, a, b) = pair().await;
    b.get().await.unwrap();
    let cut = Instant::now();
    b.link.set(Some(Down::Silent));
    b.log.cut(Some(Down::Silent));
    let version = a.put().await;

    until(|| b.in_l1().is_none()).await;
    assert!(cut.elapsed() <= Duration::from_millis(1_010), "{:?}", cut.elapsed());
    assert!(!b.is_open());
    let loads = source.loads();
    for _ in 0..3 {
        let hit = b.get().await.unwrap();
        assert_eq!((hit.entry.version, hit.tier, hit.unverified), (version, Tier::Source, false));
    }
    assert_eq!(source.loads(), loads + 3);
    b.log.cut(None);
    until(|| b.is_open()).await;
    assert_eq!(b.get().await.unwrap().tier, Tier::L1, "what it loaded meanwhile is right");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_hears_nothing_may_be_told_to_serve_what_it_has_and_marks_it() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    let b = Replica::with(&world, &source, |builder| builder.when_blind(WhenBlind::Serve)).await;
    assert!(!b.get().await.unwrap().unverified);
    b.link.set(Some(Down::Refused));
    b.log.cut(Some(Down::Refused));
    until(|| !b.is_open()).await;
    a.put().await;
    source.fail(true);

    let hit = b.get().await.unwrap();
    assert_eq!((hit.entry.version, hit.tier, hit.unverified), (1, Tier::L1, true));
    assert!(b.cache.peek(&key(1), &b.policy).unwrap().unverified);
    assert_eq!(metric(&b.cache, r#"cache_unverified_served_total{cache="user"}"#), 2.0);
    assert!(b.read(1, Read::Version(1)).await.is_err(), "a version can't be promised");

    b.log.cut(None);
    until(|| b.is_open()).await;
    assert!(b.get().await.is_err(), "and when it hears of the write, it is gone");
}

/// What was committed after a read's state was fixed may be missing in an answer that comes later.
#[tokio::test(start_paused = true)]
async fn a_read_of_the_log_counts_from_when_it_was_sent() {
    let source = Source::new();
    let b = Replica::alone(&source).await;
    b.get().await.unwrap();
    b.log.way().shut("log/after");
    b.log.way().arrived("log/after").await;
    let version = source.plain_write().version;
    let written = Instant::now();
    tokio::time::sleep(Duration::from_millis(400)).await;
    b.log.way().refuse("log", true);
    b.log.way().open("log/after");
    b.has_nothing_old(written, version, Duration::from_secs(2)).await;
    assert!(!b.is_open());
}

/// Only what one load takes: the load was begun when the fence was open.
#[tokio::test(start_paused = true)]
async fn a_deaf_replica_joins_no_load_that_is_older_than_a_second() {
    let (_world, source, a, b) = pair().await;
    b.link.set(Some(Down::Refused));
    b.log.cut(Some(Down::Refused));
    source.slow(Duration::from_secs(20));
    drop(b.begin());
    until(|| source.loads() == 1).await;
    a.put().await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    source.slow(Duration::ZERO);

    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

#[tokio::test(start_paused = true)]
async fn the_fence_keeps_stale_values_in_too() {
    let (_world, source, _a, mut b) = pair().await;
    b.policy.l2_ttl = Duration::from_secs(10);
    b.get().await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    source.fail(true);
    assert!(b.get().await.unwrap().stale.is_some());
    b.link.set(Some(Down::Silent));
    b.log.cut(Some(Down::Silent));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(b.get().await.is_err(), "nobody knows whether it was invalidated since");
}

/// It was open when the load began that the stale value was to stand in for.
#[tokio::test(start_paused = true)]
async fn a_fence_that_shuts_during_a_load_keeps_its_stale_value_in() {
    let (_world, source, _a, mut b) = pair().await;
    (b.policy.l2_ttl, b.policy.soft_timeout) = (Duration::from_secs(10), Duration::from_secs(10));
    b.get().await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    source.slow(Duration::from_secs(2));
    source.fail(true);
    let reader = b.begin();
    until(|| source.loads() == 2).await;
    b.link.set(Some(Down::Refused));
    b.log.cut(Some(Down::Refused));
    source.plain_write();
    assert!(reader.await.unwrap().is_err());
}

/// Values stored while nothing was heard wait for the log to say whether they are right.
#[tokio::test(start_paused = true)]
async fn a_value_loaded_by_a_deaf_replica_goes_when_the_log_tells_of_a_later_write() {
    let (_world, source, a, b) = pair().await;
    b.link.set(Some(Down::Refused));
    b.log.cut(Some(Down::Refused));
    until(|| !b.is_open()).await;
    b.get().await.unwrap();
    let version = source.plain_write().version;
    b.log.cut(None);
    b.keeps_the_promise(Instant::now(), version, Duration::from_secs(2)).await;
    drop(a);
}

#[tokio::test(start_paused = true)]
async fn the_log_is_asked_twice_a_second_also_where_it_fails() {
    let source = Source::new();
    let a = Replica::alone(&source).await;
    for (down, errors) in [(None, 0.0), (Some(Down::Refused), 1.0)] {
        a.log.cut(down);
        let before = source.log.asked();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let asked = source.log.asked() - before;
        assert!(asked <= 21, "{asked} reads in 10 s");
        assert_eq!(metric(&a.cache, "cache_log_errors_total") > 0.0, errors > 0.0);
        assert_eq!(a.cache.health().log_error.is_some(), errors > 0.0);
    }
}
