//! Epochs that keep a value read before an invalidation from being stored in L1 after it.

#[cfg(not(test))]
use std::sync::atomic::{AtomicU64, Ordering};

// The unit tests are model checks: shuttle goes through all interleavings of these atomics.
#[cfg(test)]
use shuttle::sync::atomic::{AtomicU64, Ordering};

const STRIPES: usize = if cfg!(test) { 2 } else { 4096 };

/// One counter per group of keys, and one per group of kinds.
///
/// An invalidation bumps, then removes. A filler notes the epoch before it reads the value anywhere, inserts,
/// and looks again: if the epoch moved, it removes what it inserted. Whatever the order, an old value goes.
#[derive(Debug)]
pub(crate) struct Stripes {
    kinds: Box<[AtomicU64]>,
    each: Box<[AtomicU64]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    /// [`CacheKey::slot`](crate::CacheKey::slot).
    slot: u8,
    kind: u64,
    one: u64,
}

impl Stripes {
    pub(crate) fn new() -> Self {
        let counters = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { kinds: counters(usize::from(u8::MAX) + 1), each: counters(STRIPES) }
    }

    pub(crate) fn epoch(&self, hash: u128, slot: u8) -> Epoch {
        Epoch { slot, kind: self.kind(slot).load(Ordering::SeqCst), one: self.one(hash).load(Ordering::SeqCst) }
    }

    /// Runs `insert` unless the key was invalidated since `epoch`, and takes it back if it was meanwhile.
    pub(crate) fn fill(&self, hash: u128, epoch: Epoch, insert: impl FnOnce(), remove: impl FnOnce()) -> bool {
        if self.epoch(hash, epoch.slot) != epoch {
            return false;
        }
        insert();
        if self.epoch(hash, epoch.slot) == epoch {
            return true;
        }
        remove();
        false
    }

    pub(crate) fn invalidate(&self, hash: u128, remove: impl FnOnce()) {
        self.one(hash).fetch_add(1, Ordering::SeqCst);
        remove();
    }

    /// Invalidates all keys of a slot.
    pub(crate) fn flush(&self, slot: u8) {
        self.kind(slot).fetch_add(1, Ordering::SeqCst);
    }

    /// False for what was read before its slot's last flush.
    pub(crate) fn is_since_flush(&self, epoch: Epoch) -> bool {
        self.kind(epoch.slot).load(Ordering::Acquire) == epoch.kind
    }

    fn kind(&self, slot: u8) -> &AtomicU64 {
        &self.kinds[usize::from(slot)]
    }

    fn one(&self, hash: u128) -> &AtomicU64 {
        // The hash is uniform, so any of its bits will do.
        &self.each[hash as usize % STRIPES]
    }
}

#[cfg(test)]
#[path = "../tests/unit/stripes.rs"]
mod tests;
