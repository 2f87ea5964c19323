//! Old values that try to get into a tier after they were invalidated: every interleaving replayed exactly.

use std::time::Duration;

use tiered_cache::{Kind, Read, Tier, Write, WriteError};
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, World, key, metric, until};

/// T01
#[tokio::test(start_paused = true)]
async fn a_value_read_before_a_write_is_not_stored_in_l2_after_it() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    source.shut();
    let reader = a.begin();
    source.read().await;

    b.put().await;
    source.open();
    let old = reader.await.unwrap().unwrap();

    assert_eq!(old.entry.version, 1, "it was right when it was read");
    assert!(!old.stored);
    assert_eq!(world.fills("lost"), 1);
    assert_eq!(metric(&a.cache, r#"cache_fill_total{cache="user",tier="l2",result="lost"}"#), 1.0);
    assert_eq!(a.get().await.unwrap().entry.version, 2);
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

/// T02
#[tokio::test(start_paused = true)]
async fn a_value_on_its_way_from_l2_is_not_stored_in_l1_after_an_invalidation() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    b.get().await.unwrap();
    a.link.shut("get/after");
    let reader = a.begin();
    a.link.arrived("get/after").await;

    b.put().await;
    // The invalidation reaches A while the old value is still on its way up.
    let heard = Instant::now() + Duration::from_millis(300);
    tokio::time::sleep_until(heard).await;
    a.link.open("get/after");
    reader.await.unwrap().unwrap();

    assert_eq!(a.in_l1(), None);
    assert_eq!(a.get().await.unwrap().entry.version, 2);
}

/// T03
#[tokio::test(start_paused = true)]
async fn a_caller_after_an_invalidation_does_not_join_the_load_from_before() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    source.shut();
    let before = a.begin();
    source.read().await;
    a.put().await;
    source.open();

    let after = a.get().await.unwrap();

    assert_eq!(after.entry.version, 2);
    assert_eq!(before.await.unwrap().unwrap().entry.version, 1);
    assert_eq!(source.loads(), 2);
    assert_eq!(a.in_l1(), Some(2), "the first result is stored nowhere");
}

/// T03, through the bus
#[tokio::test(start_paused = true)]
async fn another_replicas_invalidation_detaches_the_load_from_before() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    source.shut();
    let before = a.begin();
    source.read().await;
    b.put().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = a.begin();
    until(|| source.loads() == 2).await;
    source.open();

    assert_eq!(before.await.unwrap().unwrap().entry.version, 1);
    assert_eq!(after.await.unwrap().unwrap().entry.version, 2);
}

/// T09
#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_goes_away_still_invalidates() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    assert_eq!(b.get().await.unwrap().entry.version, 1);
    a.link.shut("done");
    let writer = {
        let a = a.clone();
        tokio::spawn(async move { a.put().await })
    };
    a.link.arrived("done").await;

    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    a.link.open("done");

    until(|| !world.is_blocked(key(1).hash())).await;
    assert_eq!(b.get().await.unwrap().entry.version, 2);
    assert_eq!(b.in_l1(), Some(2));
}

/// T10
#[tokio::test(start_paused = true)]
async fn a_writer_killed_after_the_commit_leaves_nothing_stale_and_its_block_ends() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    b.get().await.unwrap();
    a.link.shut("done");
    let writer = {
        let a = a.clone();
        tokio::spawn(async move { a.put().await })
    };
    a.link.arrived("done").await;
    // As far as the others can tell, the process is dead: phase 3 never comes.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let hit = b.get().await.unwrap();
    assert_eq!(hit.entry.version, 2);
    assert!(!hit.stored, "the block refuses fills");
    assert!(!world.has_value(key(1).hash()));
    assert_eq!(b.in_l1(), None);

    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(!world.is_blocked(key(1).hash()));
    assert!(b.get().await.unwrap().stored);
    writer.abort();
}

#[tokio::test(start_paused = true)]
async fn a_value_read_between_block_and_commit_is_stored_nowhere() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    a.link.shut("block/after");
    let writer = {
        let a = a.clone();
        tokio::spawn(async move { a.put().await })
    };
    a.link.arrived("block/after").await;

    let old = b.get().await.unwrap();
    assert_eq!((old.entry.version, old.stored), (1, false));
    a.link.open("block/after");
    writer.await.unwrap();

    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

#[tokio::test(start_paused = true)]
async fn one_writers_end_does_not_lift_another_writers_block() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    a.link.shut("done");
    let first = {
        let a = a.clone();
        tokio::spawn(async move { a.put().await })
    };
    a.link.arrived("done").await;

    b.put().await;

    assert!(world.is_blocked(key(1).hash()));
    a.link.open("done");
    first.await.unwrap();
    assert!(!world.is_blocked(key(1).hash()));
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_keeps_its_block() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    let outcome = a
        .cache
        .write(vec![key(1)], Write::Strict, |cx| async move {
            cx.committing();
            Err::<((), u64), _>("the connection broke")
        })
        .await;
    assert!(matches!(outcome, Err(WriteError::Source("the connection broke"))));
    assert!(world.is_blocked(key(1).hash()));

    let refused = a.cache.write(vec![key(2)], Write::Strict, |_| async { Err::<((), u64), _>("taken") }).await;
    assert!(refused.is_err());
    assert!(!world.is_blocked(key(2).hash()), "nothing was committed, nothing needs a block");
}

/// T11
#[tokio::test(start_paused = true)]
async fn a_strict_write_without_redis_commits_nothing() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    a.link.set(Some(Down::Silent));

    assert!(matches!(a.write(Write::Strict).await, Err(WriteError::Unavailable)));
    assert_eq!(source.bump(), 2, "still version 1 before this");
}

/// T24
#[tokio::test(start_paused = true)]
async fn what_was_not_found_is_found_after_its_creation() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    source.absent(true);
    assert_eq!(b.get().await.unwrap().entry.kind, Kind::NotFound);
    assert_eq!(b.get().await.unwrap().tier, Tier::L1);

    a.put().await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert_eq!(b.get().await.unwrap().entry.kind, Kind::Value);
}

/// T29
#[tokio::test(start_paused = true)]
async fn a_flush_during_loads_loses_their_fills_and_nothing_else() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    source.shut();
    let readers: Vec<_> = (0..100)
        .map(|id| {
            let a = a.clone();
            tokio::spawn(async move { a.read(id, Read::Bounded).await.unwrap() })
        })
        .collect();
    source.read().await;
    world.flush();
    source.open();

    let mut unstored = 0;
    for reader in readers {
        let hit = reader.await.unwrap();
        assert_eq!(hit.entry.version, 1);
        unstored += u64::from(!hit.stored);
    }
    assert!(unstored >= 1);
    assert_eq!(world.fills("lost"), unstored);
    until(|| metric(&a.cache, r#"cache_bus_gap_total{reason="reset"}"#) == 1.0).await;
    assert_eq!(a.put().await, 2);
    assert_eq!(a.get().await.unwrap().entry.version, 2);
}

/// T30
#[tokio::test(start_paused = true)]
async fn an_old_row_from_a_lagging_database_is_refused() {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    assert_eq!(a.put().await, 2);
    source.set_version(1);

    let lagging = b.get().await.unwrap();

    assert_eq!((lagging.entry.version, lagging.stored), (1, false));
    assert_eq!(world.fills("older"), 1);
    assert!(!world.has_value(key(1).hash()));
    assert_eq!(b.in_l1(), None);
}
