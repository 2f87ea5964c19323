//! Epochs that keep a value read before an invalidation from being stored in L1 after it.

use std::sync::atomic::{AtomicU64, Ordering};

const STRIPES: usize = 4096;

/// One counter per group of keys, and one for all.
///
/// An invalidation bumps, then removes. A filler notes the epoch before it reads the value anywhere, inserts,
/// and looks again: if the epoch moved, it removes what it inserted. Whatever the order, an old value goes.
#[derive(Debug)]
pub(crate) struct Stripes {
    all: AtomicU64,
    each: Box<[AtomicU64]>,
}

/// What a filler saw before it read the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    all: u64,
    one: u64,
}

impl Stripes {
    pub(crate) fn new() -> Self {
        Self { all: AtomicU64::new(0), each: (0..STRIPES).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn epoch(&self, hash: u128) -> Epoch {
        Epoch { all: self.all.load(Ordering::SeqCst), one: self.one(hash).load(Ordering::SeqCst) }
    }

    pub(crate) fn bump(&self, hash: u128) {
        self.one(hash).fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn bump_all(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
    }

    /// False for what was read before the last `bump_all`.
    pub(crate) fn is_since_flush(&self, epoch: Epoch) -> bool {
        self.all.load(Ordering::Acquire) == epoch.all
    }

    fn one(&self, hash: u128) -> &AtomicU64 {
        // The hash is uniform, so any of its bits will do.
        &self.each[hash as usize % STRIPES]
    }
}
