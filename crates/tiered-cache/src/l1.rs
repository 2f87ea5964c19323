//! L1: this process's memory, a plain store bounded by bytes.
//!
//! moka is used for `get`, `insert` and `remove` alone. Its `get_with` inserts a value that was invalidated
//! while it was being made, and a caller that is dropped there starts the load again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foldhash::fast::RandomState;
use moka::sync::Cache;

use crate::Entry;
use crate::metrics::CacheMetrics;
use crate::stripes::{Epoch, Stripes};

#[derive(Debug)]
pub(crate) struct L1 {
    /// `None`: switched off.
    store: Option<Store>,
    stripes: Stripes,
    /// Entries that should be there. moka's own listener would cost a hit allocations now and then.
    resident: AtomicU64,
    metrics: CacheMetrics,
}

/// Seeded: keys could be chosen so that their hashes share a bucket.
type Store = Cache<u128, Arc<Entry>, RandomState>;

impl L1 {
    pub(crate) fn new(max_bytes: u64, metrics: CacheMetrics) -> Self {
        let weigh = |_: &u128, entry: &Arc<Entry>| u32::try_from(entry.weight()).unwrap_or(u32::MAX);
        let store = (max_bytes > 0)
            .then(|| Cache::builder().max_capacity(max_bytes).weigher(weigh).build_with_hasher(Default::default()));
        Self { store, stripes: Stripes::new(), resident: AtomicU64::new(0), metrics }
    }

    pub(crate) fn get(&self, hash: u128) -> Option<Arc<Entry>> {
        self.store.as_ref()?.get(&hash).filter(|entry| self.stripes.is_since_flush(entry.epoch))
    }

    /// To be called before the value is read anywhere; `insert` wants it back.
    pub(crate) fn epoch(&self, hash: u128) -> Epoch {
        self.stripes.epoch(hash)
    }

    /// Stores an entry unless its key was invalidated since `epoch`.
    pub(crate) fn insert(&self, entry: Arc<Entry>, epoch: Epoch) -> bool {
        let hash = entry.key.hash();
        let Some(store) = &self.store else { return false };
        let insert = || {
            self.left(u64::from(store.contains_key(&hash)), "replaced");
            self.resident.fetch_add(1, Relaxed);
            store.insert(hash, entry);
        };
        self.stripes.fill(hash, epoch, insert, || self.remove(hash, "removed"))
    }

    pub(crate) fn invalidate(&self, hash: u128) {
        self.stripes.invalidate(hash, || self.remove(hash, "removed"));
    }

    pub(crate) fn remove(&self, hash: u128, cause: &'static str) {
        if let Some(store) = &self.store {
            self.left(u64::from(store.remove(&hash).is_some()), cause);
        }
    }

    pub(crate) fn clear(&self) {
        self.stripes.bump_all();
        if let Some(store) = &self.store {
            store.invalidate_all();
            self.left(self.resident.load(Relaxed), "flushed");
        }
    }

    /// Books what moka pushed out since.
    pub(crate) fn settle(&self) {
        if let Some(store) = &self.store {
            store.run_pending_tasks();
            self.left(self.resident.load(Relaxed).saturating_sub(store.entry_count()), "size");
        }
    }

    fn left(&self, entries: u64, cause: &'static str) {
        if entries > 0 {
            self.resident.update(Relaxed, Relaxed, |before| before.saturating_sub(entries));
            self.metrics.evicted(cause, entries);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.store.as_ref().map_or(0, Cache::weighted_size)
    }

    pub(crate) fn entries(&self) -> u64 {
        self.store.as_ref().map_or(0, Cache::entry_count)
    }
}
