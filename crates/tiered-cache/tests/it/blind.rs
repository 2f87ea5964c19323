//! Replicas that can't read the log: when the shared tier vouches for what they have, and when it may not.

use std::time::Duration;

use tiered_cache::{Read, Tier};
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, World, key, until};

async fn replicas<const N: usize>() -> (World, Source, [Replica; N]) {
    let (world, source) = (World::new(), Source::new());
    let mut all = Vec::new();
    for _ in 0..N {
        // Not in step.
        tokio::time::sleep(Duration::from_millis(170)).await;
        all.push(Replica::new(&world, &source).await);
    }
    // Each has counted all by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    (world, source, all.try_into().unwrap_or_else(|_| panic!("as many as were made")))
}

/// How long the fence was shut within some time.
async fn shut(replica: &Replica, time: Duration) -> Duration {
    let (end, mut shut, step) = (Instant::now() + time, Duration::ZERO, Duration::from_millis(5));
    while Instant::now() < end {
        tokio::time::sleep(step).await;
        shut += if replica.is_open() { Duration::ZERO } else { step };
    }
    shut
}

/// SPEC: "Postgres down: cached reads go on."
#[tokio::test(start_paused = true)]
async fn with_the_database_down_and_the_tier_well_cached_reads_go_on() {
    // One that doesn't answer may still do so, for a second.
    for (down, pause) in [(Down::Refused, Duration::ZERO), (Down::Silent, Duration::from_secs(1))] {
        let (_world, source, [a, b]) = replicas().await;
        a.get().await.unwrap();
        source.fail(true);
        [&a, &b].into_iter().for_each(|replica| replica.log.cut(Some(down)));
        let (shut_a, shut_b) = tokio::join!(shut(&a, Duration::from_secs(3)), shut(&b, Duration::from_secs(3)));
        assert!(shut_a <= pause && shut_b <= pause, "{down:?}: {shut_a:?}, {shut_b:?}");
        let (shut_a, shut_b) = tokio::join!(shut(&a, Duration::from_secs(60)), shut(&b, Duration::from_secs(60)));
        assert_eq!((shut_a, shut_b), (Duration::ZERO, Duration::ZERO), "{down:?}");
        assert_eq!(a.get().await.unwrap().tier, Tier::L1);
        assert_eq!(b.get().await.unwrap().tier, Tier::L2);
        assert_eq!(b.get().await.unwrap().tier, Tier::L1);

        // Writes that fail meanwhile take nothing away.
        for _ in 0..100 {
            assert!(a.write().await.is_err());
        }
        assert_eq!((a.in_l1(), b.in_l1()), (Some(1), Some(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_blind_replica_goes_on_and_hears_of_every_write_from_the_others() {
    for down in [Down::Refused, Down::Silent] {
        let (_world, source, [a, b, c]) = replicas().await;
        b.get().await.unwrap();
        b.log.cut(Some(down));
        assert_eq!(shut(&b, Duration::from_secs(30)).await, Duration::ZERO, "{down:?}");
        for n in 0..10 {
            let version = if n % 2 == 0 { source.plain_write().version } else { c.put().await };
            b.keeps_the_promise(Instant::now(), version, Duration::from_millis(1_100 + 70 * n)).await;
            assert_eq!(b.in_l1(), Some(version));
        }
        let version = source.plain_write_all().version;
        b.keeps_the_promise(Instant::now(), version, Duration::from_secs(2)).await;
        assert_eq!(shut(&b, Duration::from_secs(30)).await, Duration::ZERO, "{down:?}");
        drop(a);
    }
}

/// What the courier read before it knew that somebody is blind.
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
async fn a_replica_that_reads_the_log_and_gives_no_pulse_here_shuts_the_fences_of_the_blind() {
    let (_world, _source, [a, b, c]) = replicas().await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(b.is_open());
    // A commits what nobody here is told of.
    a.link.set(Some(Down::Silent));
    c.log.cut(Some(Down::Refused));
    let version = a.put().await;
    b.has_nothing_old(Instant::now(), version, Duration::from_secs(10)).await;
    assert!(!b.is_open());
}

/// Two tiers at once: they know of half of the replicas each.
#[tokio::test(start_paused = true)]
async fn a_tier_that_not_all_replicas_use_vouches_for_nobody() {
    let source = Source::new();
    let (one, other) = (World::new(), World::new());
    let (a, b) = (Replica::new(&one, &source).await, Replica::new(&other, &source).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    let cut = Instant::now();
    until(|| !b.is_open()).await;
    assert!(cut.elapsed() <= Duration::from_millis(1_005), "{:?}", cut.elapsed());
    let version = a.put().await;
    b.has_nothing_old(Instant::now(), version, Duration::from_secs(3)).await;
    assert_eq!(shut(&b, Duration::from_secs(5)).await, Duration::from_secs(5));
}

/// The address of the tier is changed, replica by replica, while one of them is blind.
#[tokio::test(start_paused = true)]
async fn a_replica_that_left_this_tier_for_another_is_not_taken_for_one_that_ended() {
    let (_world, source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    a.cache.shutdown(Duration::from_secs(1)).await;
    let elsewhere = World::new();
    let again = Replica::new(&elsewhere, &source).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    b.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let version = again.put().await;
    b.has_nothing_old(Instant::now(), version, Duration::from_secs(3)).await;
}

/// The same when it was blind before.
#[tokio::test(start_paused = true)]
async fn a_replica_that_ended_while_it_read_the_log_may_have_gone_on_elsewhere() {
    let (_world, source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(3)).await;
    a.cache.shutdown(Duration::from_secs(1)).await;
    let elsewhere = World::new();
    let again = Replica::new(&elsewhere, &source).await;
    let version = again.put().await;
    b.has_nothing_old(Instant::now(), version, Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_broke_since_the_log_was_read_vouches_for_nobody() {
    let (world, _source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(b.is_open());
    b.link.cut_bus(true);
    let version = a.put().await;
    let written = Instant::now();
    world.trim();
    b.link.cut_bus(false);
    b.has_nothing_old(written, version, Duration::from_secs(5)).await;
    assert!(!b.is_open());
    b.log.cut(None);
    until(|| b.is_open()).await;
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_not_heard_vouches_for_nobody() {
    let (_world, _source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    b.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(3)).await;
    b.link.cut_bus(true);
    let version = a.put().await;
    b.has_nothing_old(Instant::now(), version, Duration::from_secs(5)).await;
    assert!(!b.is_open());
    b.link.cut_bus(false);
    until(|| b.is_open()).await;
    assert_eq!(b.get().await.unwrap().entry.version, version, "what it missed was replayed");
}

/// Another server took over, and the connection of the bus is still with the one before.
#[tokio::test(start_paused = true)]
async fn a_bus_that_is_read_on_another_server_than_pulses_are_given_to_vouches_for_nobody() {
    let (world, _source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    let promoted = world.copy();
    a.link.lead_to(&promoted);
    b.link.lead_requests_to(&promoted);
    tokio::time::sleep(Duration::from_secs(2)).await;
    b.log.cut(Some(Down::Refused));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let version = a.put().await;
    b.has_nothing_old(Instant::now(), version, Duration::from_secs(5)).await;
    assert!(!b.is_open());
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

/// Pulses that come a little too seldom aren't a sign that nobody reads the log.
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
            until(|| world.cleaned() > cleaned).await;
            dead.link.set(None);
            until(|| dead.is_well()).await;
            assert!(source.loads() <= loads + 1);
        }
    }
}

/// The courier ends after it cleaned the tier of a change, and before it knew that somebody is blind.
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

/// Another one cleaned the tier meanwhile, when nobody was blind there.
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

/// The courier remembers less far back than that.
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

/// A position is drawn after the state is fixed: what was committed in between is missing in a read that has a later one.
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

/// With the database gone for all, only those who read the last change know of it.
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
async fn a_replica_that_ended_is_not_waited_for() {
    for down in [Down::Refused, Down::Silent] {
        let (_world, source, [a, b, c]) = replicas().await;
        a.get().await.unwrap();
        source.fail(true);
        [&a, &b, &c].into_iter().for_each(|replica| replica.log.cut(Some(down)));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (shut, ()) = tokio::join!(shut(&a, Duration::from_secs(90)), c.cache.shutdown(Duration::from_secs(1)));
        assert_eq!(shut, Duration::ZERO, "{down:?}");
        assert_eq!(b.get().await.unwrap().tier, Tier::L2);
    }
}

/// Nobody can tell whether it is dead, or goes on writing where nobody hears of it.
#[tokio::test(start_paused = true)]
async fn a_replica_that_vanished_is_waited_for() {
    let (_world, _source, [a, b, c]) = replicas().await;
    a.get().await.unwrap();
    [&a, &b].into_iter().for_each(|replica| replica.log.cut(Some(Down::Refused)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    c.link.set(Some(Down::Silent));
    let version = c.put().await;
    a.has_nothing_old(Instant::now(), version, Duration::from_secs(120)).await;
    assert!(!a.is_open() && !b.is_open());
}

/// Its pulses arrive, and what it commits doesn't.
#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_with_telling_shuts_the_fences_of_the_blind_in_time() {
    let (_world, _source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    // Nobody delivers what the log says, so all hangs on what A tells.
    [&a, &b].into_iter().for_each(|replica| replica.log.cut(Some(Down::Refused)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(b.is_open());
    a.link.refuse("invalidate", true);
    let version = a.put().await;
    b.has_nothing_old(Instant::now(), version, Duration::from_secs(10)).await;
    assert!(!b.is_open());

    a.link.refuse("invalidate", false);
    until(|| b.is_open()).await;
    assert_eq!(b.get().await.unwrap().entry.version, version);
}

/// What was sent long ago says nothing of now.
#[tokio::test(start_paused = true)]
async fn a_pulse_that_arrives_late_does_not_vouch_for_what_was_committed_since() {
    for late in [500, 1_000, 3_000, 10_000] {
        let (_world, _source, [a, b]) = replicas().await;
        b.get().await.unwrap();
        [&a, &b].into_iter().for_each(|replica| replica.log.cut(Some(Down::Refused)));
        tokio::time::sleep(Duration::from_secs(3)).await;
        // Held back on their way, and delivered when A has given the connection up.
        a.link.set(Some(Down::Late(Duration::from_millis(late))));
        tokio::time::sleep(Duration::from_secs(1)).await;
        a.link.set(Some(Down::Refused));
        let version = a.put().await;
        b.has_nothing_old(Instant::now(), version, Duration::from_secs(20)).await;
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
