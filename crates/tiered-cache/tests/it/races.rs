//! Old values that try to get into a tier after they were invalidated: every interleaving replayed exactly.

use std::time::Duration;

use tiered_cache::{Committed, Read, Tier, WriteError};
use tokio::time::Instant;

use crate::support::{Down, Replica, Source, World, key, metric, serial, told_by_the_bus, until};

async fn pair() -> (World, Source, Replica, Replica) {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    (world, source, a, b)
}

/// T01
#[tokio::test(start_paused = true)]
async fn a_value_read_before_a_write_is_not_stored_in_l2_after_it() {
    let (world, source, a, b) = pair().await;
    source.shut();
    let reader = a.begin();
    source.read().await;

    b.put().await;
    source.open();
    let old = reader.await.unwrap().unwrap();

    assert_eq!(old.entry.version, 1, "it was right when it was read");
    assert!(!old.stored);
    assert_eq!(world.count_of("lost"), 1);
    assert_eq!(metric(&a.cache, r#"cache_fill_total{cache="user",tier="l2",result="lost"}"#), 1.0);
    assert_eq!(a.get().await.unwrap().entry.version, 2);
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

/// T01, where nobody but the log tells of the write
#[tokio::test(start_paused = true)]
async fn a_value_read_before_a_plain_write_is_stored_nowhere_once_the_log_was_read() {
    let (world, source, a, b) = pair().await;
    // Else the version alone would do it.
    source.unversioned();
    source.shut();
    let reader = a.begin();
    source.read().await;

    source.plain_write();
    until(|| !world.has_lease(key(1).hash())).await;
    source.open();
    let old = reader.await.unwrap().unwrap();

    assert_eq!((serial(&old), old.stored), (1, false));
    assert_eq!(world.count_of("lost"), 1);
    assert_eq!((a.in_l1(), serial(&b.get().await.unwrap())), (None, 2));
}

/// T02
#[tokio::test(start_paused = true)]
async fn a_value_on_its_way_from_l2_is_not_stored_in_l1_after_an_invalidation() {
    let (_world, _source, a, b) = pair().await;
    b.get().await.unwrap();
    a.link.shut("get/after");
    let reader = a.begin();
    a.link.arrived("get/after").await;

    b.put().await;
    // The invalidation reaches A while the old value is still on its way up.
    tokio::time::sleep(Duration::from_millis(300)).await;
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
    let (_world, source, a, b) = pair().await;
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

/// T03, through the log
#[tokio::test(start_paused = true)]
async fn a_write_that_only_the_log_tells_of_detaches_the_load_from_before() {
    for write in [Source::plain_write, Source::plain_write_all] {
        let source = Source::new();
        let a = Replica::alone(&source).await;
        source.shut();
        let before = a.begin();
        source.read().await;
        write(&source);
        tokio::time::sleep(Duration::from_millis(600)).await;
        let after = a.begin();
        until(|| source.loads() == 2).await;
        source.open();

        assert_eq!(before.await.unwrap().unwrap().entry.version, 1);
        assert_eq!(after.await.unwrap().unwrap().entry.version, 2);
        assert_eq!(a.in_l1(), Some(2));
    }
}

/// T09
#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_goes_away_still_invalidates() {
    let (world, _source, a, b) = pair().await;
    assert_eq!(b.get().await.unwrap().entry.version, 1);
    a.link.shut("invalidate");
    let writer = a.begin_write();
    a.link.arrived("invalidate").await;

    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    a.link.open("invalidate");

    told_by_the_bus().await;
    assert!(!world.has_value(key(1).hash()));
    assert_eq!(b.in_l1(), None);
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

/// T10
#[tokio::test(start_paused = true)]
async fn a_writer_killed_after_the_commit_leaves_nothing_stale() {
    let (world, source, a, b) = pair().await;
    let c = Replica::new(&world, &source).await;
    b.get().await.unwrap();
    a.link.shut("invalidate");
    let writer = a.begin_write();
    a.link.arrived("invalidate").await;
    let committed = Instant::now();
    // As far as the others can tell, the process is dead.
    a.link.set(Some(Down::Refused));
    a.log.cut(Some(Down::Refused));

    b.keeps_the_promise(committed, 2, Duration::from_secs(5)).await;
    c.keeps_the_promise(committed, 2, Duration::from_secs(5)).await;
    assert!(b.get().await.unwrap().stored || b.in_l1() == Some(2));
    writer.abort();
}

/// A fill may come between the commit and the notice; it was begun before the write.
#[tokio::test(start_paused = true)]
async fn a_value_stored_between_the_commit_and_its_notice_goes_with_it() {
    let (world, source, a, b) = pair().await;
    source.shut();
    let reader = b.begin();
    source.read().await;
    a.link.shut("invalidate");
    let writer = a.begin_write();
    a.link.arrived("invalidate").await;
    source.open();
    assert!(reader.await.unwrap().unwrap().stored, "nobody has told of the write yet");
    assert!(world.has_value(key(1).hash()));

    a.link.open("invalidate");
    assert_eq!(writer.await.unwrap(), 2);
    told_by_the_bus().await;

    assert!(!world.has_value(key(1).hash()));
    assert_eq!(b.in_l1(), None);
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

/// T30
#[tokio::test(start_paused = true)]
async fn an_old_row_from_a_lagging_database_is_refused() {
    let (world, source, a, b) = pair().await;
    assert_eq!(a.put().await, 2);
    told_by_the_bus().await;
    source.set_version(1);

    let lagging = b.get().await.unwrap();

    assert_eq!((lagging.entry.version, lagging.stored), (1, false));
    assert!(!world.has_value(key(1).hash()) && !world.has_lease(key(1).hash()));
    assert_eq!(b.in_l1(), None);
}

/// T30, long after the write
#[tokio::test(start_paused = true)]
async fn an_old_row_from_a_lagging_database_does_not_replace_a_newer_one() {
    let (world, source, a, b) = pair().await;
    assert_eq!(a.put().await, 2);
    a.get().await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    source.set_version(1);

    let behind = b.read(1, Read::Version(3)).await;

    assert!(behind.is_err(), "{behind:?}");
    assert_eq!(world.count_of("older"), 1);
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_failed_removes_nothing() {
    let (world, source, a, b) = pair().await;
    a.get().await.unwrap();
    b.get().await.unwrap();
    source.fail(true);

    assert!(matches!(a.write().await, Err(WriteError::Source(_))));
    tokio::time::sleep(Duration::from_secs(2)).await;

    assert_eq!((a.in_l1(), b.in_l1()), (Some(1), Some(1)));
    assert!(world.has_value(key(1).hash()));
    assert_eq!(world.count_of("invalidate"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_panicked_removes_nothing_and_says_so() {
    let (world, _source, a, _b) = pair().await;
    a.get().await.unwrap();

    let dies = a.source.clone();
    dies.panic(true);
    let outcome = a.cache.write(|| dies.commit()).await;

    assert!(matches!(outcome, Err(WriteError::Panicked)), "{outcome:?}");
    assert_eq!(a.in_l1(), Some(1));
    assert!(world.has_value(key(1).hash()));
}

/// The connection broke after COMMIT was sent: the writer can't know, the log does.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_was_committed_though_it_failed_is_told_by_the_log() {
    let (_world, source, a, b) = pair().await;
    a.get().await.unwrap();
    b.get().await.unwrap();
    let committed = Instant::now();
    let lost = source.clone();
    let outcome = a
        .cache
        .write(|| async move {
            lost.plain_write();
            Err::<Committed<()>, _>("the connection broke")
        })
        .await;

    assert!(matches!(outcome, Err(WriteError::Source("the connection broke"))));
    for replica in [&a, &b] {
        replica.keeps_the_promise(committed, 2, Duration::from_secs(2)).await;
    }
    assert_eq!((a.in_l1(), b.in_l1()), (Some(2), Some(2)));
}

/// What was told by the bus isn't removed once more when the log tells it.
#[tokio::test(start_paused = true)]
async fn a_write_is_applied_once() {
    let (world, source, a, b) = pair().await;
    b.get().await.unwrap();
    a.put().await;
    told_by_the_bus().await;
    assert_eq!(b.get().await.unwrap().tier, Tier::Source);

    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(b.get().await.unwrap().tier, Tier::L1);
    }

    assert_eq!(source.loads(), 2);
    assert!(world.has_value(key(1).hash()), "the courier removes older versions only");
    assert_eq!(a.get().await.unwrap().tier, Tier::L2);
}

/// A load that was begun after a write isn't given up when the log tells of that write.
#[tokio::test(start_paused = true)]
async fn a_load_from_after_a_write_is_stored_though_the_log_tells_of_the_write_meanwhile() {
    let source = Source::new();
    let a = Replica::alone(&source).await;
    a.log.way().shut("log");
    a.log.way().arrived("log").await;
    a.put().await;
    source.shut();
    let reader = a.begin();
    source.read().await;
    a.log.way().open("log");
    tokio::time::sleep(Duration::from_millis(600)).await;
    source.open();

    assert!(reader.await.unwrap().unwrap().stored);
    assert_eq!((a.in_l1(), source.loads()), (Some(2), 1));
}

#[tokio::test(start_paused = true)]
async fn things_without_versions_are_removed_whenever_they_change() {
    let (world, source, a, b) = pair().await;
    source.unversioned();
    for _ in 0..3 {
        b.get().await.unwrap();
        a.put().await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!((b.in_l1(), world.has_value(key(1).hash())), (None, false));
        b.get().await.unwrap();
        source.plain_write();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!((b.in_l1(), world.has_value(key(1).hash())), (None, false));
    }
    // And are kept while they don't.
    b.get().await.unwrap();
    let loads = source.loads();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(b.get().await.unwrap().tier, Tier::L1);
    assert_eq!((a.get().await.unwrap().tier, source.loads()), (Tier::L2, loads));
}

/// T24
#[tokio::test(start_paused = true)]
async fn what_was_not_found_is_found_after_its_creation() {
    let (_world, source, a, b) = pair().await;
    source.absent(true);
    assert_eq!(b.get().await.unwrap().entry.value, None);
    assert_eq!(b.get().await.unwrap().tier, Tier::L1);

    a.put().await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert!(b.get().await.unwrap().entry.value.is_some());
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
    let before = metric(&a.cache, "cache_bus_gap_total");
    world.flush();
    source.open();

    let mut unstored = 0;
    for reader in readers {
        let hit = reader.await.unwrap();
        assert_eq!(hit.entry.version, 1);
        unstored += u64::from(!hit.stored);
    }
    assert!(unstored >= 1);
    assert_eq!(world.count_of("lost"), unstored);
    until(|| metric(&a.cache, "cache_bus_gap_total") > before).await;
    assert_eq!(a.put().await, 2);
    assert_eq!(a.get().await.unwrap().entry.version, 2);
}
