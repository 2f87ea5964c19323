//! A shared tier that misbehaves: it refuses, forgets, lies or is another one, and nobody becomes old for it.

use std::time::Duration;

use bytes::Bytes;
use tiered_cache::{Read, Tier};
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, World, key, metric, until};

async fn pair() -> (World, Source, Replica, Replica) {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    (world, source, a, b)
}

/// It answers reads, and refuses all else: `min-replicas-to-write`, a full disk, a demoted primary.
#[tokio::test(start_paused = true)]
async fn a_tier_that_refuses_writes_makes_nobody_old() {
    let (world, source, a, b) = pair().await;
    a.get().await.unwrap();
    b.get().await.unwrap();
    [&a, &b].into_iter().for_each(|replica| replica.link.set(Some(Down::ReadOnly)));
    for n in 0..6 {
        let version = if n % 2 == 0 { a.put().await } else { source.plain_write().version };
        let written = Instant::now();
        assert!(world.has_value(key(1).hash()), "the old one is still there");
        for replica in [&b, &a] {
            replica.keeps_the_promise(written, version, Duration::from_millis(1_500)).await;
        }
        let late = Replica::with_link(&world, &source, |link| link.set(Some(Down::ReadOnly))).await;
        assert_eq!(late.get().await.unwrap().entry.version, version);
    }
    let why = a.cache.health().unfit.unwrap();
    assert!(why.contains("NOREPLICAS"), "{why}");
    assert_eq!(metric(&a.cache, r#"cache_breaker_state{tier="l2"}"#), 1.0);

    [&a, &b].into_iter().for_each(|replica| replica.link.set(None));
    until(|| a.is_well() && b.is_well()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(b.get().await.unwrap().entry.version, 7);
    assert!(a.read(9, Read::Bounded).await.unwrap().stored);
}

/// The tier vouches for nobody whose pulse it doesn't take.
#[tokio::test(start_paused = true)]
async fn a_tier_that_refuses_writes_vouches_for_nobody() {
    let (_world, _source, a, b) = pair().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    b.get().await.unwrap();
    [&a, &b].into_iter().for_each(|replica| replica.link.set(Some(Down::ReadOnly)));
    b.log.cut(Some(Down::Refused));
    let version = a.put().await;
    b.keeps_the_promise(Instant::now(), version, Duration::from_secs(5)).await;
    assert!(!b.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_evicts_anything_at_any_time_makes_nobody_old() {
    let (world, source, a, b) = pair().await;
    for n in 0..60_u8 {
        a.get().await.unwrap();
        b.get().await.unwrap();
        world.evict_any(n);
        let version = if n % 2 == 0 { a.put().await } else { source.plain_write().version };
        let written = Instant::now();
        world.evict_any(n / 7);
        b.keeps_the_promise(written, version, Duration::from_millis(1_100)).await;
        a.keeps_the_promise(written, version, Duration::from_millis(100)).await;
    }
}

/// A former primary that is cut off, and still answers one replica.
#[tokio::test(start_paused = true)]
async fn an_isolated_old_tier_makes_its_last_user_no_older() {
    let (world, source, a, b) = pair().await;
    let c = Replica::new(&world, &source).await;
    a.get().await.unwrap();
    b.get().await.unwrap();
    let promoted = world.copy();
    [&a, &c].into_iter().for_each(|replica| replica.link.lead_to(&promoted));
    for n in 0..8 {
        let version = if n % 2 == 0 { a.put().await } else { source.plain_write().version };
        b.keeps_the_promise(Instant::now(), version, Duration::from_millis(1_500)).await;
    }
    // Nor when it can't read the log.
    b.log.cut(Some(Down::Refused));
    let version = a.put().await;
    b.keeps_the_promise(Instant::now(), version, Duration::from_secs(5)).await;
    assert!(!b.is_open());
    b.link.lead_to(&promoted);
    b.log.cut(None);
    until(|| b.is_well()).await;
    b.keeps_the_promise(Instant::now(), version, Duration::from_secs(2)).await;
    assert_eq!(c.get().await.unwrap().entry.version, version);
}

#[tokio::test(start_paused = true)]
async fn two_tiers_at_once_make_nobody_old() {
    let (one, source) = (World::new(), Source::new());
    let other = World::new();
    let (a, b) = (Replica::new(&one, &source).await, Replica::new(&other, &source).await);
    for n in 0..8 {
        a.get().await.unwrap();
        b.get().await.unwrap();
        let version = if n % 2 == 0 { a.put().await } else { source.plain_write().version };
        let written = Instant::now();
        for replica in [&b, &a] {
            replica.keeps_the_promise(written, version, Duration::from_millis(1_100)).await;
        }
        if n == 4 {
            // It changes over, and finds there what others left.
            a.link.lead_to(&other);
        }
    }
    let (c, d) = (Replica::new(&one, &source).await, Replica::new(&other, &source).await);
    for replica in [&c, &d] {
        assert_eq!(replica.get().await.unwrap().entry.version, 9);
    }
}

/// Whoever comes back to a tier that nobody kept clean meanwhile.
#[tokio::test(start_paused = true)]
async fn a_tier_that_was_left_alone_for_longer_than_anybody_remembers_is_given_up() {
    for rest in [1, 5, 20, 400] {
        let (world, source, a, b) = pair().await;
        a.get().await.unwrap();
        [&a, &b].into_iter().for_each(|replica| replica.link.set(Some(Down::Refused)));
        let version = source.plain_write().version;
        tokio::time::sleep(Duration::from_secs(rest)).await;
        assert!(world.has_value(key(1).hash()));
        [&a, &b].into_iter().for_each(|replica| replica.link.set(None));
        let c = Replica::new(&world, &source).await;
        for replica in [&c, &b, &a] {
            replica.keeps_the_promise(Instant::now() - Duration::from_secs(2), version, Duration::from_secs(3)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_tier_costs_a_few_requests_their_deadline_and_is_used_again() {
    let (_world, _source, a, _b) = pair().await;
    a.link.set(Some(Down::Silent));
    let (mut slow, mut id) = (0, 10);
    while a.cache.health().unfit.is_none() {
        let begun = Instant::now();
        a.read(id, Read::Bounded).await.unwrap();
        slow += u32::from(begun.elapsed() >= Duration::from_millis(90));
        id += 1;
    }
    assert!(slow <= 3, "three failures are enough");
    assert_eq!(metric(&a.cache, r#"cache_breaker_state{tier="l2"}"#), 1.0);
    let begun = Instant::now();
    a.read(99, Read::Bounded).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(5), "requests no longer wait for it");
    assert_eq!(a.get().await.unwrap().tier, Tier::Source);
    assert_eq!(a.get().await.unwrap().tier, Tier::L1, "L1 goes on by the log");

    a.link.set(None);
    let back = Instant::now();
    until(|| a.is_well()).await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert!(a.read(100, Read::Bounded).await.unwrap().stored);
}

/// Anything may stand there: it is a miss, removed and counted, and asked for a few times only.
#[tokio::test(start_paused = true)]
async fn unreadable_values_are_removed_and_counted_and_cause_no_loop() {
    type Change = fn(&Bytes) -> Bytes;
    let changes: [(&str, Change); 7] = [
        ("half of it", |bytes| bytes.slice(..bytes.len() / 2)),
        ("nothing", |_| Bytes::new()),
        ("less than a stamp", |_| Bytes::from_static(b"short")),
        ("no stamp", |bytes| [b"not sixteen digi", &bytes[16..]].concat().into()),
        ("no stamp and no entry", |_| Bytes::from_static(b"sixteen bytes...and then some")),
        ("a stamp alone", |bytes| bytes.slice(..16)),
        ("other bits", |bytes| bytes.iter().enumerate().map(|(i, byte)| byte ^ u8::from(i > 16)).collect()),
    ];
    for (what, change) in changes {
        let (world, source, a, b) = pair().await;
        a.get().await.unwrap();
        world.corrupt(key(1).hash(), change);
        let asked = || ["get", "acquire", "fill", "remove"].map(|operation| world.count_of(operation));
        let before = asked();

        let hit = b.get().await.unwrap();

        assert_eq!((hit.entry.version, hit.stored), (1, true), "{what}");
        let after = asked();
        let each: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert!(each.iter().all(|operations| *operations <= 2), "{what}: {each:?}");
        let count = |kind| metric(&b.cache, &format!(r#"cache_codec_errors_total{{cache="user",result="{kind}"}}"#));
        assert_eq!(["malformed", "checksum", "stamp"].map(count).iter().sum::<f64>(), 1.0, "{what}");
        assert_eq!((source.loads(), each[3]), (2, 1), "{what}");
        let c = Replica::new(&world, &source).await;
        assert_eq!(c.get().await.unwrap().tier, Tier::L2, "{what}: a good one is there again");
    }
}

#[tokio::test(start_paused = true)]
async fn something_of_another_type_is_removed_and_counted_and_no_reason_to_leave_the_tier() {
    let (world, source, a, b) = pair().await;
    world.put_foreign(key(1).hash());

    let hit = a.get().await.unwrap();

    assert_eq!((hit.tier, hit.stored), (Tier::Source, true));
    assert_eq!(metric(&a.cache, r#"cache_codec_errors_total{cache="user",result="type"}"#), 1.0);
    assert_eq!((world.count_of("get"), world.count_of("acquire"), world.count_of("remove")), (1, 1, 1));
    assert_eq!((b.get().await.unwrap().tier, source.loads()), (Tier::L2, 1));

    for _ in 0..10 {
        world.put_foreign(key(1).hash());
        source.plain_write();
        tokio::time::sleep(Duration::from_secs(1)).await;
        a.get().await.unwrap();
        assert!(a.is_well() && b.is_well());
    }
}

/// A tier that gives the same unreadable value again and again, whatever is done.
#[tokio::test(start_paused = true)]
async fn a_tier_that_gives_nothing_but_rubbish_is_asked_with_pauses() {
    let (world, _source, a, b) = pair().await;
    a.get().await.unwrap();
    let rubbish = |n: u8| move |_: &Bytes| Bytes::from(vec![n; 20]);
    b.link.refuse("remove", true);
    world.corrupt(key(1).hash(), rubbish(0));
    let writer = {
        let world = world.clone();
        tokio::spawn(async move {
            for n in 1..200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                world.corrupt(key(1).hash(), rubbish(n));
            }
        })
    };
    let begun = Instant::now();
    let hit = b.get().await.unwrap();
    assert_eq!(hit.entry.version, 1);
    let asked = world.count_of("acquire");
    assert!(asked < 40, "{asked} times in {:?}", begun.elapsed());
    writer.await.unwrap();
}
