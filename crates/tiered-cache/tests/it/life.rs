//! The life of a value: promotion, early refresh, schemas, unreadable bytes.

use std::time::Duration;

use tiered_cache::{Read, Tier};
use tokio::time::Instant;

use crate::support::{Replica, Source, World, body, key, metric, until};

/// T22
#[tokio::test(start_paused = true)]
async fn a_promoted_value_lives_no_longer_than_it_had_left() {
    for left in [1, 7, 100, 2_999] {
        let (world, source) = (World::new(), Source::new());
        let mut a = Replica::new(&world, &source).await;
        let mut b = Replica::new(&world, &source).await;
        (a.policy.fail_safe, b.policy.fail_safe) = (Duration::ZERO, Duration::ZERO);
        a.get().await.unwrap();
        tokio::time::sleep(Duration::from_secs(3_600 - left)).await;

        let promoted = b.get().await.unwrap();
        assert_eq!(promoted.tier, Tier::L2);
        assert!(promoted.ttl <= Duration::from_secs(left.min(300)), "{:?}", promoted.ttl);
        assert!(promoted.age >= Duration::from_secs(3_600 - left));

        tokio::time::sleep(Duration::from_secs(left)).await;
        assert_eq!(b.get().await.unwrap().tier, Tier::Source);
    }
}

#[tokio::test(start_paused = true)]
async fn l1_keeps_a_value_for_its_cap_and_then_asks_l2() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    a.get().await.unwrap();
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(a.get().await.unwrap().tier, Tier::L1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(a.get().await.unwrap().tier, Tier::L2);
    assert_eq!(source.loads(), 1);
}

/// T21
#[tokio::test(start_paused = true)]
async fn a_busy_key_is_refreshed_before_it_expires() {
    let (world, source) = (World::new(), Source::new());
    let mut a = Replica::new(&world, &source).await;
    (a.policy.beta, a.policy.l2_ttl) = (1.0, Duration::from_secs(10));
    source.slow(Duration::from_millis(100));
    a.get().await.unwrap();
    let (begun, loads) = (Instant::now(), source.loads());

    let mut blocked = 0;
    while begun.elapsed() < Duration::from_secs(1_000) {
        let asked = Instant::now();
        a.get().await.unwrap();
        blocked += u32::from(asked.elapsed() > Duration::from_millis(50));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let refreshed = source.loads() - loads;
    assert!((90..=120).contains(&refreshed), "{refreshed} loads in 100 lives");
    assert!(blocked <= 1, "{blocked} readers had to wait");
}

#[tokio::test(start_paused = true)]
async fn peek_begins_no_early_refresh_and_get_or_load_begins_one() {
    let (world, source) = (World::new(), Source::new());
    let mut a = Replica::new(&world, &source).await;
    (a.policy.beta, a.policy.l2_ttl) = (1.0, Duration::from_secs(10));
    source.slow(Duration::from_millis(100));
    a.get().await.unwrap();
    assert!(a.in_l1().is_some());
    tokio::time::sleep(Duration::from_millis(9_990)).await;

    // So near the end nearly every read draws a refresh.
    for _ in 0..1_000 {
        assert!(a.in_l1().is_some());
    }
    assert_eq!((source.loads(), metric(&a.cache, "cache_flights")), (1, 0.0));
    for _ in 0..100 {
        assert_eq!(a.get().await.unwrap().tier, Tier::L1, "the answer doesn't wait for it");
    }
    until(|| source.loads() == 2 && metric(&a.cache, "cache_flights") == 0.0).await;
}

#[tokio::test(start_paused = true)]
async fn not_found_is_remembered_shortly() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    source.absent(true);
    assert_eq!(a.get().await.unwrap().entry.value, None);
    assert_eq!(a.get().await.unwrap().tier, Tier::L1);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(a.get().await.unwrap().tier, Tier::Source);
    assert_eq!(source.loads(), 2);
}

/// T25
#[tokio::test(start_paused = true)]
async fn two_schemas_share_a_key_and_one_invalidation_reaches_both() {
    let (world, source) = (World::new(), Source::new());
    let old = Replica::new(&world, &source).await;
    let mut new = Replica::new(&world, &source).await;
    new.policy.schema = 2;
    for replica in [&old, &new] {
        assert_eq!(replica.get().await.unwrap().tier, Tier::Source);
    }

    for writer in [&old, &new] {
        let version = writer.put().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        for (reader, schema) in [(&old, 1), (&new, 2)] {
            let hit = reader.get().await.unwrap();
            assert_eq!((hit.entry.version, hit.entry.schema), (version, schema));
        }
    }
    assert_eq!(metric(&old.cache, r#"cache_codec_errors_total{cache="user",result="schema"}"#), 0.0);
}

/// T26, T27
#[tokio::test(start_paused = true)]
async fn another_keys_entry_is_never_served() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    a.read(1, Read::Bounded).await.unwrap();
    world.transplant(key(1).hash(), key(2).hash());

    let hit = a.read(2, Read::Bounded).await.unwrap();

    assert_eq!(hit.tier, Tier::Source);
    assert!(metric(&a.cache, r#"cache_codec_errors_total{cache="user",result="key"}"#) > 0.0);
}

/// T28
#[tokio::test(start_paused = true)]
async fn a_value_that_is_too_big_is_answered_but_not_stored() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    source.size(10 * 1024 * 1024);

    let hit = a.get().await.unwrap();

    assert_eq!(body(&hit).len(), 10 * 1024 * 1024);
    assert!(!hit.stored);
    assert_eq!(a.in_l1(), None);
    assert!(!world.has_value(key(1).hash()));
    assert!(!world.has_lease(key(1).hash()), "the next one needn't wait for the lease to end");
    assert_eq!(metric(&a.cache, r#"cache_fill_total{cache="user",tier="all",result="too_big"}"#), 1.0);
}

/// T28
#[tokio::test(start_paused = true)]
async fn a_flood_of_ids_that_do_not_exist_stays_within_l1s_bound() {
    let source = Source::new();
    let world = World::new();
    let a = Replica::with(&world, &source, |builder| builder.l1(1024 * 1024)).await;
    for id in 0..21_000 {
        // A hundred users are asked for again and again; the others don't exist.
        source.absent(false);
        a.read(id % 100, Read::Bounded).await.unwrap();
        source.absent(true);
        a.read(1_000 + id, Read::Bounded).await.unwrap();
    }
    until(|| a.cache.health().l1_bytes <= 1024 * 1024).await;
    // Even an empty entry takes 300 bytes.
    assert!(a.cache.health().l1_entries * 300 <= 1024 * 1024, "{}", a.cache.health().l1_entries);
    let pushed_out = metric(&a.cache, r#"cache_l1_evictions_total{cause="size"}"#);
    assert!(pushed_out > 15_000.0, "{pushed_out}");
    let kept = (0..100).filter(|&id| a.cache.peek(&key(id), &a.policy).is_some()).count();
    assert!(kept >= 80, "only {kept} of 100 hot entries are left");
}

#[tokio::test(start_paused = true)]
async fn the_probe_tells_a_value_that_stays_old_from_one_that_is_merely_behind() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::with(&world, &source, |builder| builder.probe_every(3)).await;
    let probes =
        |result: &str| metric(&a.cache, &format!(r#"cache_consistency_probe_total{{cache="user",result="{result}"}}"#));
    for _ in 0..4 {
        a.get().await.unwrap();
    }
    until(|| probes("ok") == 1.0).await;
    // A change that nobody was told of: what the promise is about.
    source.set_version(2);
    for _ in 0..4 {
        a.get().await.unwrap();
    }
    until(|| probes("violation") == 1.0).await;
    assert_eq!(probes("ok"), 1.0);
}
