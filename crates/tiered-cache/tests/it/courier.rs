//! The courier, which tells blind replicas what the log says: from where on, how far, and what becomes of it when it ends.

use std::time::Duration;

use tiered_cache::Read;
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, World, key, replicas, shut, until};

#[tokio::test(start_paused = true)]
async fn a_plain_write_at_any_moment_of_going_blind_is_heard_of() {
    for late in 0..30 {
        let (_world, source, [a, b]) = replicas().await;
        b.get().await.unwrap();
        b.log.cut(Some(if late % 2 == 0 { Down::Refused } else { Down::Silent }));
        a.link.slow(Duration::from_millis(late * 7 % 40));
        b.link.slow(Duration::from_millis(late * 13 % 40));
        tokio::time::sleep(Duration::from_millis(late * 50)).await;
        let version = source.plain_write().version;
        b.has_nothing_old(Instant::now(), version, Duration::from_secs(4)).await;
        assert_eq!(b.get().await.unwrap().entry.version, version);
        assert_eq!(shut(&b, Duration::from_secs(2)).await, Duration::ZERO, "{late}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_nobody_cleans_vouches_for_nobody() {
    let (_world, source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(b.is_open());
    for (rest, again) in [(5, true), (20, false)] {
        b.get().await.unwrap();
        a.link.refuse("clean", true);
        let version = source.plain_write().version;
        b.has_nothing_old(Instant::now(), version, Duration::from_secs(rest)).await;
        assert!(!b.is_open());
        a.link.refuse("clean", false);
        b.has_nothing_old(Instant::now(), version, Duration::from_secs(3)).await;
        // After more than anybody remembers nobody can tell it what it missed.
        assert_eq!(b.is_open(), again);
        assert_eq!(b.get().await.unwrap().entry.version, version);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_the_log_still_reads_it() {
    let (_world, source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(3)).await;
    a.link.refuse("clean", true);
    a.log.way().slow(Duration::from_millis(250));
    a.link.slow(Duration::from_millis(160));
    let version = source.plain_write().version;
    b.has_nothing_old(Instant::now(), version, Duration::from_secs(20)).await;
}

/// Positions stand still while nobody writes, so that it has read as far as any.
#[tokio::test(start_paused = true)]
async fn a_courier_that_can_read_the_log_no_more_gives_way_to_one_that_can() {
    for blind in 0..2 {
        let (_world, source, replicas) = replicas::<2>().await;
        let (blind, other) = (&replicas[blind], &replicas[1 - blind]);
        blind.get().await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        blind.log.cut(Some(Down::Refused));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(shut(blind, Duration::from_secs(5)).await, Duration::ZERO);
        let version = source.plain_write().version;
        blind.keeps_the_promise(Instant::now(), version, Duration::from_secs(2)).await;
        assert!(blind.is_open() && other.is_open());
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_courier_dies_another_goes_on_where_it_was() {
    for shared in [false, true] {
        let (world, source, [a, b, c]) = replicas().await;
        b.get().await.unwrap();
        if shared {
            b.log.cut(Some(Down::Refused));
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        // One of the two is the courier: each dies once.
        for dead in [&a, &c] {
            dead.link.set(Some(Down::Silent));
            let version = source.plain_write().version;
            let written = Instant::now();
            b.keeps_the_promise(written, version, Duration::from_secs(5)).await;
            let loads = source.loads();
            assert!(b.get().await.unwrap().entry.version == version);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let cleaned = world.cleaned();
            // Positions stand still while nobody writes.
            source.plain_write();
            until(|| world.cleaned() > cleaned).await;
            dead.link.set(None);
            until(|| dead.is_well()).await;
            assert!(source.loads() <= loads + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_courier_tells_the_blind_what_the_old_one_did_not() {
    for late in 0..50 {
        let (world, source) = (World::new(), Source::new());
        // The courier reads the log just after the other, and that one just after the blind one.
        let a = Replica::new(&world, &source).await;
        tokio::time::sleep(Duration::from_millis(450)).await;
        let c = Replica::new(&world, &source).await;
        tokio::time::sleep(Duration::from_millis(450)).await;
        let b = Replica::new(&world, &source).await;
        tokio::time::sleep(Duration::from_millis(1_005)).await;
        b.get().await.unwrap();
        b.log.cut(Some(Down::Refused));
        let version = source.plain_write().version;
        let written = Instant::now();
        tokio::time::sleep(Duration::from_millis(400 + late * 20)).await;
        a.cache.shutdown(Duration::from_millis(1)).await;
        b.has_nothing_old(written, version, Duration::from_secs(6)).await;
        c.has_nothing_old(written, version, Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_courier_that_comes_back_tells_what_another_cleaned_and_did_not_tell() {
    let (world, source, [a, b, c]) = replicas().await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(3)).await;
    [&a, &b].into_iter().for_each(|replica| replica.link.set(Some(Down::Refused)));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let version = source.plain_write().version;
    let written = Instant::now();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!world.has_value(key(1).hash()));
    c.link.set(Some(Down::Refused));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    b.link.set(None);
    tokio::time::sleep(Duration::from_millis(400)).await;
    a.link.set(None);
    tokio::time::sleep(Duration::from_millis(700)).await;
    c.link.set(None);

    b.has_nothing_old(written, version, Duration::from_secs(5)).await;
    assert!(b.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_heard_nothing_for_longer_than_the_courier_remembers_waits_for_the_log() {
    let (_world, source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    b.link.set(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let version = source.plain_write().version;
    let written = Instant::now();
    tokio::time::sleep(Duration::from_secs(28)).await;
    b.link.set(None);
    b.has_nothing_old(written, version, Duration::from_secs(5)).await;
    assert!(!b.is_open());
    b.log.cut(None);
    until(|| b.is_open()).await;
    assert_eq!((b.in_l1(), a.is_open()), (None, true));
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_missed_in_its_last_read_counts_from_the_read_before() {
    let (_world, source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    b.log.way().shut("log/seen");
    b.log.way().arrived("log/seen").await;
    let version = source.plain_write().version;
    let written = Instant::now();
    tokio::time::sleep(Duration::from_millis(600)).await;
    b.log.way().refuse("log", true);
    b.log.way().open("log/seen");
    tokio::task::yield_now().await;
    b.link.set(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(20)).await;
    b.link.set(None);
    b.has_nothing_old(written, version, Duration::from_secs(5)).await;
    assert!(!b.is_open() && a.is_open());
}

#[tokio::test(start_paused = true)]
async fn what_only_some_read_before_the_database_went_down_is_told_to_the_others() {
    for late in 0..20 {
        let (_world, source, [a, b]) = replicas().await;
        a.get().await.unwrap();
        b.get().await.unwrap();
        tokio::time::sleep(Duration::from_millis(late * 25)).await;
        b.log.cut(Some(Down::Refused));
        let version = source.plain_write().version;
        let written = Instant::now();
        until(|| a.in_l1().is_none()).await;
        a.log.cut(Some(Down::Refused));
        b.has_nothing_old(written, version, Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_blind_replica_takes_from_the_tier_what_the_others_keep_clean() {
    let (_world, source, [a, b]) = replicas().await;
    b.log.cut(Some(Down::Refused));
    for n in 0..15 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let version = source.plain_write().version;
        let written = Instant::now();
        a.read(1, Read::Version(version)).await.unwrap();
        b.keeps_the_promise(written, version, Duration::from_millis(1_300 + 50 * n)).await;
    }
    assert!(source.loads() <= 16, "{} loads of 16 versions", source.loads());
}
