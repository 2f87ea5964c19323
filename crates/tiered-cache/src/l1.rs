//! L1: this process's memory, a plain store bounded by bytes.
//!
//! moka is used for `get`, `insert` and `remove` alone. Its `get_with` inserts a value that was invalidated
//! while it was being made, and a caller that is dropped there starts the load again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foldhash::fast::RandomState;
use moka::sync::Cache;

use crate::stripes::{Epoch, Stripes};
use crate::{CacheKey, Entry};

#[derive(Debug)]
pub(crate) struct L1 {
    /// `None`: switched off.
    store: Option<Store>,
    stripes: Stripes,
    /// Entries that should be there. moka's own listener would cost a hit allocations now and then.
    resident: AtomicU64,
    gone: Gone,
}

/// Seeded: keys could be chosen so that their hashes share a bucket.
type Store = Cache<u128, Arc<Entry>, RandomState>;

/// How many entries left, by cause.
#[derive(Debug, Default)]
struct Gone {
    expired: AtomicU64,
    removed: AtomicU64,
    replaced: AtomicU64,
    flushed: AtomicU64,
    size: AtomicU64,
}

impl L1 {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let weigh = |_: &u128, entry: &Arc<Entry>| u32::try_from(entry.weight()).unwrap_or(u32::MAX);
        let store = (max_bytes > 0)
            .then(|| Cache::builder().max_capacity(max_bytes).weigher(weigh).build_with_hasher(Default::default()));
        Self { store, stripes: Stripes::new(), resident: AtomicU64::new(0), gone: Gone::default() }
    }

    pub(crate) fn get(&self, hash: u128) -> Option<Arc<Entry>> {
        self.store.as_ref()?.get(&hash).filter(|entry| self.stripes.is_since_flush(entry.epoch))
    }

    /// To be called before the value is read anywhere; `insert` wants it back.
    pub(crate) fn epoch(&self, key: &CacheKey) -> Epoch {
        self.stripes.epoch(key.hash(), key.slot())
    }

    /// Stores an entry unless its key was invalidated since `epoch`.
    pub(crate) fn insert(&self, entry: Arc<Entry>, epoch: Epoch) -> bool {
        let hash = entry.key.hash();
        let Some(store) = &self.store else { return false };
        let insert = || {
            self.left(u64::from(store.contains_key(&hash)), &self.gone.replaced);
            self.resident.fetch_add(1, Relaxed);
            store.insert(hash, entry);
        };
        self.stripes.fill(hash, epoch, insert, || self.remove(hash, &self.gone.removed))
    }

    /// Removes what is older than `version` (0: whatever is there), and refuses what was read before now.
    pub(crate) fn invalidate(&self, hash: u128, version: u64) {
        self.stripes.invalidate(hash, || {
            let newer = |entry: &Arc<Entry>| version > 0 && entry.version >= version;
            if !self.store.as_ref().and_then(|store| store.get(&hash)).is_some_and(|entry| newer(&entry)) {
                self.remove(hash, &self.gone.removed);
            }
        });
    }

    pub(crate) fn expire(&self, hash: u128) {
        self.remove(hash, &self.gone.expired);
    }

    fn remove(&self, hash: u128, cause: &AtomicU64) {
        if let Some(store) = &self.store {
            self.left(u64::from(store.remove(&hash).is_some()), cause);
        }
    }

    /// Forgets all keys of a slot. They take room until others push them out.
    pub(crate) fn flush(&self, slot: u8) {
        self.stripes.flush(slot);
    }

    pub(crate) fn clear(&self) {
        (0..=u8::MAX).for_each(|slot| self.stripes.flush(slot));
        if let Some(store) = &self.store {
            store.invalidate_all();
            self.left(self.resident.load(Relaxed), &self.gone.flushed);
        }
    }

    /// How many entries left by now, by cause, those that moka pushed out included.
    pub(crate) fn gone(&self) -> [(&'static str, u64); 5] {
        if let Some(store) = &self.store {
            store.run_pending_tasks();
            self.left(self.resident.load(Relaxed).saturating_sub(store.entry_count()), &self.gone.size);
        }
        let Gone { expired, removed, replaced, flushed, size } = &self.gone;
        [("expired", expired), ("removed", removed), ("replaced", replaced), ("flushed", flushed), ("size", size)]
            .map(|(cause, entries)| (cause, entries.load(Relaxed)))
    }

    fn left(&self, entries: u64, cause: &AtomicU64) {
        if entries > 0 {
            self.resident.update(Relaxed, Relaxed, |before| before.saturating_sub(entries));
            cause.fetch_add(entries, Relaxed);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.store.as_ref().map_or(0, Cache::weighted_size)
    }

    pub(crate) fn entries(&self) -> u64 {
        self.store.as_ref().map_or(0, Cache::entry_count)
    }
}
