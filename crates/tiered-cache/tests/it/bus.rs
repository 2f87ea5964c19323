//! The bus: what is missed, what is replayed.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Replica, Source, World, metric, until};

async fn pair() -> (World, Source, Replica, Replica) {
    let (world, source) = (World::new(), Source::new());
    let (a, b) = (Replica::new(&world, &source).await, Replica::new(&world, &source).await);
    (world, source, a, b)
}

#[tokio::test(start_paused = true)]
async fn a_write_reaches_the_other_replicas_at_once() {
    let (_world, _source, a, b) = pair().await;
    b.get().await.unwrap();
    a.put().await;
    let begun = Instant::now();
    until(|| b.in_l1().is_none()).await;
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    assert_eq!(b.get().await.unwrap().entry.version, 2);
    assert_eq!(metric(&a.cache, "cache_invalidate_visible_seconds_count"), 1.0);
    assert_eq!(metric(&b.cache, r#"cache_l1_evictions_total{cause="removed"}"#), 1.0);
}
