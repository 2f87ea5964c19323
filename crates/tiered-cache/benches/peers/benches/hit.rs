//! What a hit in process memory costs here and in other caches, side by side in one run:
//! `cargo bench --manifest-path crates/tiered-cache/benches/peers/Cargo.toml`.
//!
//! Requests are for keys drawn from a Zipf distribution (exponent 0.99), in batches, the same for all. The candidates take
//! turns, so that a noisy machine is noisy for all of them. Each does its batch twice: right after another candidate had
//! the processor's caches (cold), and again at once (warm).

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use multi_tier_cache::{CacheStrategy, CacheSystemBuilder, MokaCache, MokaCacheConfig, TierConfig};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand_distr::Distribution as _;
use tiered_cache::{Body, CacheKey, LoadError, Loaded, Policy, Read, TieredCache};

const KEYS: u64 = 10_000;
/// Short, so that a batch on a busy machine is seldom interrupted.
const BATCH: usize = 200;
const ROUNDS: usize = 4_000;

async fn load() -> Result<Loaded, LoadError> {
    let body = Body { bytes: Bytes::from(vec![b'x'; 1024]), etag: Bytes::from_static(b"W/\"v1\"") };
    Ok(Loaded { value: Some(body), version: 1 })
}

fn key(id: u64) -> CacheKey {
    CacheKey::builder("user").param("id", id).build()
}

/// Does what other work of a process does to the processor's caches.
fn evict(memory: &mut [u8]) {
    memory.iter_mut().step_by(64).for_each(|byte| *byte = black_box(byte.wrapping_add(1)));
}

/// Ids as users ask for them: a few very often, most seldom.
fn popular() -> Vec<u64> {
    let zipf = rand_distr::Zipf::new(KEYS as f64, 0.99).unwrap();
    let mut random = StdRng::seed_from_u64(1);
    // The ranks are spread, so that popular keys aren't neighbours in memory.
    (0..ROUNDS * BATCH).map(|_| (zipf.sample(&mut random) as u64).wrapping_mul(7_919) % KEYS).collect()
}

/// Runs one batch.
type Candidate = (&'static str, Box<dyn Fn(&[u64])>);

/// Asks for a batch without waiting.
fn plain<T>(get: impl Fn(u64) -> T + 'static) -> Box<dyn Fn(&[u64])> {
    Box::new(move |ids| ids.iter().for_each(|&id| drop(black_box(get(id)))))
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let policy = Policy::new("user");
    let cache = TieredCache::builder(runtime.handle().clone()).build();
    let value = Arc::new(Bytes::from(vec![b'x'; 1024]));
    let moka = moka::sync::Cache::<u64, Arc<Bytes>>::builder()
        .max_capacity(KEYS * 2)
        .time_to_live(Duration::from_secs(300))
        .build();
    let quick = quick_cache::sync::Cache::<u64, Arc<Bytes>>::new(20_000);
    let map = RwLock::new(HashMap::<u64, Arc<Bytes>>::new());
    let memory = MokaCacheConfig { max_capacity: KEYS * 2, ..MokaCacheConfig::default() };
    let memory = Arc::new(MokaCache::new(memory).unwrap());
    let builder = CacheSystemBuilder::new().with_tier(memory, TierConfig::as_l1());
    let multi = Arc::clone(runtime.block_on(builder.build()).unwrap().cache_manager());
    for id in 0..KEYS {
        runtime.block_on(cache.get_or_load(&key(id), &policy, Read::Bounded, load)).unwrap();
        moka.insert(id, Arc::clone(&value));
        quick.insert(id, Arc::clone(&value));
        map.write().unwrap().insert(id, Arc::clone(&value));
        let strategy = CacheStrategy::Custom(Duration::from_secs(300));
        runtime.block_on(multi.set_with_strategy(&format!("user:{id}"), Bytes::clone(&value), strategy)).unwrap();
    }

    let (whole, looked) = (cache.clone(), cache.clone());
    let (whole_policy, looked_policy) = (policy.clone(), policy.clone());
    let (handle, multi_handle) = (runtime.handle().clone(), runtime.handle().clone());
    let built: Vec<CacheKey> = (0..KEYS).map(key).collect();
    let at = |id: u64| usize::try_from(id).unwrap();
    let candidates: Vec<Candidate> = vec![
        ("tiered-cache, key built, peek", plain(move |id| whole.peek(&key(id), &whole_policy))),
        ("tiered-cache, key at hand, peek", plain(move |id| looked.peek(&built[at(id)], &looked_policy))),
        (
            "tiered-cache, key built, get_or_load",
            Box::new(move |ids| {
                handle.block_on(async {
                    for &id in ids {
                        let hit = cache.get_or_load(&key(id), &policy, Read::Bounded, load).await;
                        drop(black_box(hit.unwrap()));
                    }
                });
            }),
        ),
        (
            "multi-tier-cache 0.6.9, get",
            Box::new(move |ids| {
                multi_handle.block_on(async {
                    for id in ids {
                        drop(black_box(multi.get(&format!("user:{id}")).await.unwrap().expect("a hit")));
                    }
                });
            }),
        ),
        ("moka with a lifetime", plain(move |id| moka.get(&id))),
        ("quick_cache", plain(move |id| quick.get(&id))),
        ("RwLock<HashMap>", plain(move |id| map.read().unwrap().get(&id).cloned())),
    ];
    let ids = popular();
    let mut other = vec![0_u8; 2 << 20];
    // `-- only <number> <hits>`: one candidate alone, for a profiler.
    let args: Vec<String> = std::env::args().skip_while(|arg| arg != "only").skip(1).take(2).collect();
    if let [candidate, hits] = &args[..] {
        let (name, run) = &candidates[candidate.parse::<usize>().unwrap()];
        let hits: usize = hits.parse().unwrap();
        ids.chunks(BATCH).cycle().take(hits / BATCH).for_each(run);
        println!("{hits} hits: {name}");
        return;
    }
    let mut times = vec![[Vec::new(), Vec::new()]; candidates.len()];
    for ids in ids.chunks(BATCH) {
        for ((_, run), times) in candidates.iter().zip(&mut times) {
            for pass in times {
                let begun = Instant::now();
                run(ids);
                pass.push(begun.elapsed().as_nanos() / BATCH as u128);
            }
            evict(&mut other);
        }
    }
    println!("{:<40} {:>10} {:>10} {:>10}", "hit, ns", "cold p50", "warm p50", "warm best");
    for ((name, _), [cold, warm]) in candidates.iter().zip(&mut times) {
        cold.sort_unstable();
        warm.sort_unstable();
        println!("{name:<40} {:>10} {:>10} {:>10}", cold[cold.len() / 2], warm[warm.len() / 2], warm[0]);
    }
}
