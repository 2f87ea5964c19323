//! A hit must not touch the heap. A binary of its own, since it counts every allocation of the process.

use std::sync::Arc;

use bytes::Bytes;
use tiered_cache::{Body, CacheKey, LoadError, Loaded, Policy, Read, Tier, TieredCache};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

async fn load() -> Result<Loaded, LoadError> {
    let body = Body { bytes: Bytes::from_static(b"{}"), etag: Bytes::from_static(b"W/\"v1\"") };
    Ok(Loaded { value: Some(body), version: 1 })
}

#[test]
fn a_hit_allocates_nothing() -> Result<(), Arc<dyn std::error::Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(wrap)?;
    runtime.block_on(async {
        let cache = TieredCache::builder(tokio::runtime::Handle::current()).probe_every(0).build();
        let policy = Policy::new("user");
        let key = CacheKey::builder("user").param("id", 1).build();
        for _ in 0..100 {
            cache.get_or_load(&key, &policy, Read::Bounded, load).await.map_err(wrap)?;
        }
        let _profiler = dhat::Profiler::builder().testing().build();

        for _ in 0..1_000 {
            let key = CacheKey::builder("user").scope("tenant").param("id", 123_456_789).build();
            assert!(cache.peek(&key, &policy).is_none());
        }
        let before = dhat::HeapStats::get();
        for id in 0..1_000_u64 {
            let key = CacheKey::builder("user").param("id", 1).build();
            let hit = if id % 2 == 0 {
                cache.peek(&key, &policy)
            } else {
                cache.get_or_load(&key, &policy, Read::Bounded, load).await.ok()
            };
            assert!(hit.is_some_and(|hit| hit.tier == Tier::L1));
        }
        let after = dhat::HeapStats::get();
        let allocated = after.total_blocks - before.total_blocks;
        assert_eq!(allocated, 0, "allocations in 1,000 hits");
        Ok(())
    })
}

fn wrap(error: impl std::error::Error + Send + Sync + 'static) -> Arc<dyn std::error::Error + Send + Sync> {
    Arc::new(error)
}
