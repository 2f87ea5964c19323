//! L3: copies that come back from the dead are never used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tiered_cache::{CopyStore, Place, Read, RemoteError, Tier};
use tokio::time::Instant;

use crate::support::{Replica, Source, World, key, metric, told_by_the_bus};

/// A memcached that can vanish and come back with what it had.
#[derive(Clone, Default)]
struct Flapping {
    copies: Arc<Mutex<HashMap<Place, Bytes>>>,
    dead: Arc<Mutex<bool>>,
}

impl Flapping {
    fn die(&self, dead: bool) {
        *self.dead.lock().unwrap() = dead;
    }

    async fn answer(&self) -> Result<(), RemoteError> {
        if *self.dead.lock().unwrap() {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
        Ok(())
    }
}

#[async_trait]
impl CopyStore for Flapping {
    async fn get(&self, place: Place) -> Result<Option<Bytes>, RemoteError> {
        self.answer().await?;
        Ok(self.copies.lock().unwrap().get(&place).cloned())
    }

    async fn set(&self, place: Place, copy: Bytes, _ttl: Duration) -> Result<(), RemoteError> {
        self.answer().await?;
        self.copies.lock().unwrap().insert(place, copy);
        Ok(())
    }
}

async fn replicas() -> (World, Source, Flapping, Replica, Replica) {
    let (world, source, store) = (World::new(), Source::new(), Flapping::default());
    let l3 = Arc::new(store.clone());
    let a = Replica::with(&world, &source, |builder| builder.l3(l3.clone())).await;
    let b = Replica::with(&world, &source, |builder| builder.l3(l3.clone())).await;
    (world, source, store, a, b)
}

#[tokio::test(start_paused = true)]
async fn a_value_that_redis_evicted_comes_from_l3_for_the_time_it_had_left() {
    let (world, source, _store, a, b) = replicas().await;
    a.get().await.unwrap();
    tokio::time::sleep(Duration::from_secs(40)).await;
    world.evict(key(1).hash());

    let hit = b.get().await.unwrap();

    assert_eq!((hit.tier, hit.entry.version), (Tier::L3, 1));
    assert!(hit.age >= Duration::from_secs(40));
    assert!(world.has_value(key(1).hash()), "and is copied up");
    assert_eq!(source.loads(), 1);
    assert_eq!(b.get().await.unwrap().tier, Tier::L1);
}

/// T32
#[tokio::test(start_paused = true)]
async fn a_copy_from_before_a_write_is_not_resurrected() {
    let (_world, _source, store, a, b) = replicas().await;
    a.get().await.unwrap();
    let before = store.copies.lock().unwrap().clone();
    store.die(true);
    a.put().await;
    store.die(false);
    *store.copies.lock().unwrap() = before;

    let hit = b.get().await.unwrap();

    assert_eq!((hit.tier, hit.entry.version), (Tier::Source, 2));
}

/// T32
#[tokio::test(start_paused = true)]
async fn a_copy_from_before_an_invalidation_without_a_version_is_not_used() {
    let (_world, source, _store, a, b) = replicas().await;
    a.get().await.unwrap();
    source.set_version(2);
    a.cache.invalidate(&[key(1)]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;

    let hit = b.get().await.unwrap();

    assert_eq!((hit.tier, hit.entry.version), (Tier::Source, 2));
}

/// T32, when there is a newer copy by another name
#[tokio::test(start_paused = true)]
async fn a_copy_by_another_name_than_redis_knows_is_not_used() {
    let (world, _source, store, a, b) = replicas().await;
    a.get().await.unwrap();
    let before = store.copies.lock().unwrap().clone();
    a.put().await;
    a.get().await.unwrap();
    *store.copies.lock().unwrap() = before;
    // Nobody remembers the write.
    tokio::time::sleep(Duration::from_secs(15)).await;
    world.evict(key(1).hash());

    let hit = b.get().await.unwrap();

    assert_eq!((hit.tier, hit.entry.version), (Tier::Source, 2));
}

/// T32, when Redis goes back to a state that knows the copy
#[tokio::test(start_paused = true)]
async fn a_copy_that_a_failover_of_redis_makes_valid_again_is_judged_by_what_is_remembered() {
    let (world, _source, store, a, b) = replicas().await;
    a.get().await.unwrap();
    world.evict(key(1).hash());
    let (before, copies) = (world.snapshot(), store.copies.lock().unwrap().clone());
    a.put().await;
    told_by_the_bus().await;
    world.fail_over_to(&before);
    *store.copies.lock().unwrap() = copies;

    let hit = b.get().await.unwrap();

    assert_eq!((hit.tier, hit.entry.version), (Tier::Source, 2));
}

/// T32
#[tokio::test(start_paused = true)]
async fn a_copy_that_outlived_its_redis_is_not_used() {
    let (world, source, _store, a, b) = replicas().await;
    a.get().await.unwrap();
    source.set_version(2);
    world.flush();
    tokio::time::sleep(Duration::from_millis(300)).await;

    assert_eq!(b.get().await.unwrap().entry.version, 2);
}

/// T32
#[tokio::test(start_paused = true)]
async fn a_dead_memcached_costs_three_requests_their_deadline() {
    let (_world, _source, store, a, _b) = replicas().await;
    store.die(true);
    let begun = Instant::now();
    for id in 10..110_u64 {
        assert!(a.read(id, Read::Bounded).await.unwrap().stored);
    }
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    assert!(metric(&a.cache, r#"cache_fill_total{cache="user",tier="l3",result="error"}"#) > 0.0);

    store.die(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.read(200, Read::Bounded).await.unwrap();
    a.read(201, Read::Bounded).await.unwrap();
    assert!(!store.copies.lock().unwrap().is_empty(), "one probe was enough");
}
