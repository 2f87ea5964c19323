//! Counters for the hot path: no lock, no allocation, and threads don't share cache lines.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::lock::lock;
use crate::{Hit, Read, Tier};

/// Threads are spread over this many copies of each counter.
const SHARDS: usize = 8;
/// More kinds of things than this share one label, so that series stay bounded whatever callers do.
const MOST: usize = 64;
/// The age of one plain hit in L1 in so many is counted, so many times: two shared counters less per hit.
const SAMPLE: usize = 16;
const OTHER: &str = "other";

const TIERS: [Tier; 4] = [Tier::L1, Tier::L2, Tier::L3, Tier::Source];
const RESULTS: [&str; 3] = ["hit", "negative", "stale"];
const LEVELS: [&str; 2] = ["bounded", "version"];
const AGES_MS: [u64; 12] = [1, 10, 100, 500, 1_000, 5_000, 30_000, 60_000, 300_000, 900_000, 3_600_000, 7_200_000];

#[derive(Debug, Default)]
pub(super) struct Hot {
    caches: ArcSwap<Vec<Arc<PerCache>>>,
    adding: Mutex<()>,
}

#[derive(Debug)]
struct PerCache {
    name: &'static str,
    shards: [Shard; SHARDS],
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    requests: [[[AtomicU64; LEVELS.len()]; RESULTS.len()]; TIERS.len()],
    ages: [AtomicU64; AGES_MS.len() + 1],
    age_millis: AtomicU64,
}

impl PerCache {
    fn new(name: &'static str) -> Self {
        Self { name, shards: Default::default() }
    }

    fn sum(&self, pick: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| pick(shard).load(Ordering::Relaxed)).sum()
    }
}

impl Hot {
    pub(super) fn served(&self, cache: &'static str, hit: &Hit, read: Read) {
        let caches = self.caches.load();
        match caches.iter().find(|known| known.name == cache) {
            Some(known) => count(known, hit, read),
            None => count(&self.add(cache), hit, read),
        }
    }

    #[cold]
    fn add(&self, cache: &'static str) -> Arc<PerCache> {
        let _alone = lock(&self.adding);
        let known = self.caches.load_full();
        let name = if known.len() < MOST { cache } else { OTHER };
        if let Some(there) = known.iter().find(|known| known.name == name) {
            return Arc::clone(there);
        }
        let new = Arc::new(PerCache::new(name));
        let more = known.iter().cloned().chain([Arc::clone(&new)]).collect();
        self.caches.store(Arc::new(more));
        new
    }
}

fn count(cache: &PerCache, hit: &Hit, read: Read) {
    let result = match (hit.stale, &hit.entry.value) {
        (Some(_), _) => 2,
        (None, None) => 1,
        (None, Some(_)) => 0,
    };
    let level = match read {
        Read::Bounded => 0,
        Read::Version(_) => 1,
    };
    let (shard, asked) = shard();
    let shard = &cache.shards[shard];
    shard.requests[hit.tier as usize][result][level].fetch_add(1, Ordering::Relaxed);
    let plain = hit.tier == Tier::L1 && result != 2;
    if plain && !asked.is_multiple_of(SAMPLE) {
        return;
    }
    let weight = if plain { SAMPLE as u64 } else { 1 };
    let age = crate::codec::millis(hit.age);
    let bucket = AGES_MS.iter().position(|&bound| age <= bound).unwrap_or(AGES_MS.len());
    shard.ages[bucket].fetch_add(weight, Ordering::Relaxed);
    shard.age_millis.fetch_add(age * weight, Ordering::Relaxed);
}

/// This thread's shard, and how many times it was asked for.
fn shard() -> (usize, usize) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<(usize, usize)> = Cell::new((NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS, 0)));
    MINE.with(|mine| {
        let (shard, asked) = mine.get();
        mine.set((shard, asked.wrapping_add(1)));
        (shard, asked)
    })
}

impl Collector for Hot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let caches = self.caches.load();
        let help = "Answers by tier and outcome";
        let mut requests = encoder.encode_descriptor("cache_requests", help, None, MetricType::Counter)?;
        for cache in caches.iter() {
            let each = |tier| (0..RESULTS.len()).flat_map(move |r| (0..LEVELS.len()).map(move |l| (tier, r, l)));
            for (tier, result, level) in (0..TIERS.len()).flat_map(each) {
                let count = cache.sum(|shard| &shard.requests[tier][result][level]);
                if count > 0 {
                    let (tier, result, level) = (TIERS[tier].as_str(), RESULTS[result], LEVELS[level]);
                    let labels = [("cache", cache.name), ("tier", tier), ("result", result), ("level", level)];
                    ConstCounter::new(count).encode(requests.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Time between the read of the source and the answer";
        let mut ages = encoder.encode_descriptor("cache_served_age_seconds", help, None, MetricType::Histogram)?;
        for cache in caches.iter() {
            let bounds = AGES_MS.iter().map(|&bound| Duration::from_millis(bound).as_secs_f64()).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> =
                bounds.enumerate().map(|(i, bound)| (bound, cache.sum(|shard| &shard.ages[i]))).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = Duration::from_millis(cache.sum(|shard| &shard.age_millis)).as_secs_f64();
            let labels = [("cache", cache.name)];
            ages.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}
