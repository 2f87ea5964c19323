//! Replicas that can't read the log: when the shared tier vouches for what they have, and when it may not.

use std::time::Duration;

use tiered_cache::Tier;
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, World, replicas, shut, until};

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

/// Pulses that come a little too seldom aren't a sign that nobody reads the log.
/// The courier ends after it cleaned the tier of a change, and before it knew that somebody is blind.
/// Another one cleaned the tier meanwhile, when nobody was blind there.
/// The courier remembers less far back than that.
/// A position is drawn after the state is fixed: what was committed in between is missing in a read that has a later one.
/// With the database gone for all, only those who read the last change know of it.
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

/// The same while it is being told, however long that takes.
#[tokio::test(start_paused = true)]
async fn a_replica_that_takes_long_to_tell_shuts_the_fences_of_the_blind_in_time() {
    let (_world, _source, [a, b]) = replicas().await;
    b.get().await.unwrap();
    [&a, &b].into_iter().for_each(|replica| replica.log.cut(Some(Down::Refused)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(b.is_open());
    a.link.shut("invalidate");
    let writing = a.begin_write();
    a.link.arrived("invalidate").await;
    b.has_nothing_old(Instant::now(), 2, Duration::from_secs(10)).await;
    assert!(!b.is_open());

    a.link.open("invalidate");
    let version = writing.await.unwrap();
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
