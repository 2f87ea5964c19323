//! Invalidations that reach the shared tier late: what a replica promoted from there meanwhile must go with it.
//! Found by the service's history checker.

use std::sync::Arc;

use tiered_cache::Write;

use crate::support::{Down, Replica, Source, Table, World, until, write_through_outbox};

/// The writer couldn't block the key, and reads the old value from L2 before its second word arrives there.
#[tokio::test(start_paused = true)]
async fn an_old_value_promoted_before_the_writers_invalidation_arrives_goes_with_it() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    a.get().await.unwrap();
    a.link.set(Some(Down::Refused));
    a.link.shut("done");
    let writer = {
        let a = a.clone();
        tokio::spawn(async move { a.write(Write::Available).await })
    };
    a.link.arrived("done").await;

    a.link.set(None);
    assert_eq!(a.get().await.unwrap().entry.version, 1, "the write isn't answered yet");
    a.link.open("done");
    writer.await.unwrap().unwrap();

    assert_eq!(a.in_l1(), None);
    assert_eq!(a.get().await.unwrap().entry.version, 2);
}

/// The same when the second word fails too and is repeated in the background.
#[tokio::test(start_paused = true)]
async fn an_old_value_promoted_before_a_repeated_invalidation_arrives_goes_with_it() {
    let (world, source) = (World::new(), Source::new());
    let a = Replica::new(&world, &source).await;
    a.get().await.unwrap();
    a.link.set(Some(Down::Refused));
    a.write(Write::Available).await.unwrap();

    a.link.set(None);
    assert_eq!(a.get().await.unwrap().entry.version, 1, "Redis hasn't been told yet");
    until(|| world.notices() > 0).await;

    assert_eq!(a.in_l1(), None);
    assert_eq!(a.get().await.unwrap().entry.version, 2);
}

/// The same for a replica that delivers another's invalidation from the outbox.
#[tokio::test(start_paused = true)]
async fn an_old_value_promoted_while_the_outbox_is_drained_goes_with_it() {
    let (world, source, table) = (World::new(), Source::new(), Table::default());
    let outbox = Arc::new(table.clone());
    let a = Replica::new(&world, &source).await;
    let b = Replica::with(&world, &source, |builder| builder.outbox(outbox)).await;
    b.get().await.unwrap();
    a.link.set(Some(Down::Refused));
    b.link.shut("done");
    write_through_outbox(&a.cache, &source, &table).await.unwrap();
    drop(a);
    b.link.arrived("done").await;

    assert_eq!(b.get().await.unwrap().entry.version, 1, "Redis hasn't been told yet");
    b.link.open("done");
    until(|| world.notices() > 0).await;

    assert_eq!(b.in_l1(), None);
    assert_eq!(b.get().await.unwrap().entry.version, 2);
}
