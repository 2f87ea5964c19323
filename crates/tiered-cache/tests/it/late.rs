//! Writes that the shared tier hears of late: what is found there meanwhile is judged by who knows of them.

use std::time::Duration;

use tiered_cache::{Change, Changed, Tier};
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, World, key, told_by_the_bus, until};

async fn pair() -> (World, Source, Replica, Replica) {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    (world, source, a, b)
}

/// The writer couldn't tell the shared tier, and can reach it again before it is told.
#[tokio::test(start_paused = true)]
async fn a_writer_takes_no_older_value_from_a_tier_that_it_could_not_tell() {
    let (world, source, a, _b) = pair().await;
    a.get().await.unwrap();
    a.link.set(Some(Down::Refused));
    assert_eq!(a.put().await, 2);
    a.link.set(None);
    assert!(world.has_value(key(1).hash()), "nobody has told it yet");

    let hit = a.get().await.unwrap();

    assert_eq!((hit.tier, hit.entry.version), (Tier::Source, 2));
    assert_eq!(source.loads(), 2);
}

/// The others may find it there for as long as they haven't read the log.
#[tokio::test(start_paused = true)]
async fn an_old_value_that_was_taken_from_the_tier_before_the_log_was_read_goes_with_that() {
    let (world, _source, a, b) = pair().await;
    a.get().await.unwrap();
    a.link.set(Some(Down::Refused));
    a.log.way().shut("wake");
    let (committed, writer) = (Instant::now(), a.begin_write());
    a.log.way().arrived("wake").await;
    assert_eq!(b.get().await.unwrap().entry.version, 1, "the write isn't answered yet");

    b.keeps_the_promise(committed, 2, Duration::from_secs(2)).await;
    assert_eq!(b.in_l1(), Some(2));
    a.log.way().open("wake");
    writer.await.unwrap();
    assert!(world.has_value(key(1).hash()));
}

/// Readers are woken where the bus can't tell.
#[tokio::test(start_paused = true)]
async fn a_write_that_the_tier_cannot_be_told_of_wakes_the_readers_of_the_log() {
    let (_world, _source, a, b) = pair().await;
    b.get().await.unwrap();
    a.link.set(Some(Down::Refused));
    let begun = Instant::now();
    a.put().await;
    until(|| b.in_l1().is_none()).await;
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_shared_tier_the_log_alone_tells() {
    let source = Source::new();
    let (a, b) = (Replica::alone(&source).await, Replica::alone(&source).await);
    b.get().await.unwrap();
    let begun = Instant::now();
    a.put().await;
    assert_eq!(a.in_l1(), None);
    until(|| b.in_l1().is_none()).await;
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());

    for n in 0..20 {
        let version = source.plain_write().version;
        b.keeps_the_promise(Instant::now(), version, Duration::from_millis(1_300 + 10 * n)).await;
        assert_eq!(b.in_l1(), Some(version));
    }
}

/// What couldn't be told at the time of the commit is told with the next pulse.
#[tokio::test(start_paused = true)]
async fn what_the_tier_could_not_be_told_is_told_as_soon_as_it_can_be() {
    let (world, _source, a, _b) = pair().await;
    a.get().await.unwrap();
    let before = world.notices();
    a.link.set(Some(Down::Refused));
    a.log.cut(Some(Down::Refused));
    for _ in 0..5 {
        a.put().await;
    }
    assert_eq!(world.notices(), before);
    a.link.set(None);

    until(|| world.notices() > before).await;

    assert_eq!(world.notices(), before + 1, "all at once");
    assert!(!world.has_value(key(1).hash()));
}

/// What is more than can be kept is told as a change of everything, which the tier must forget, too.
#[tokio::test(start_paused = true)]
async fn a_writer_that_has_more_to_tell_than_it_keeps_makes_everything_forgotten() {
    let (world, source, a, b) = pair().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.get().await.unwrap();
    // Nobody can read the log, so all hangs on what the writer tells.
    [&a, &b].into_iter().for_each(|replica| replica.log.cut(Some(Down::Refused)));
    a.link.set(Some(Down::Refused));
    for _ in 0..1_001 {
        a.put().await;
    }
    let (version, before) = (source.log.row().version, world.notices());
    a.link.set(None);
    until(|| world.notices() > before && b.is_open()).await;
    // Longer than anybody remembers it.
    tokio::time::sleep(Duration::from_secs(15)).await;
    world.say(&[Change { what: Changed::Key(key(2).hash()), version: 0 }]);
    told_by_the_bus().await;

    assert!(b.is_open());
    assert_eq!(b.get().await.unwrap().entry.version, version);
}
