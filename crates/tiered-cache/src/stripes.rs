//! Epochs that keep a value read before an invalidation from being stored in L1 after it.

#[cfg(not(test))]
use std::sync::atomic::{AtomicU64, Ordering};

// The unit tests are model checks: shuttle goes through all interleavings of these atomics.
#[cfg(test)]
use shuttle::sync::atomic::{AtomicU64, Ordering};

const STRIPES: usize = if cfg!(test) { 2 } else { 4096 };

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

    /// Runs `insert` unless the key was invalidated since `epoch`, and takes it back if it was meanwhile.
    pub(crate) fn fill(&self, hash: u128, epoch: Epoch, insert: impl FnOnce(), remove: impl FnOnce()) -> bool {
        if self.epoch(hash) != epoch {
            return false;
        }
        insert();
        if self.epoch(hash) == epoch {
            return true;
        }
        remove();
        false
    }

    pub(crate) fn invalidate(&self, hash: u128, remove: impl FnOnce()) {
        self.one(hash).fetch_add(1, Ordering::SeqCst);
        remove();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shuttle::sync::Mutex;
    use shuttle::thread;

    use super::*;

    const HASH: u128 = 7;

    /// A source, and a store that holds what was read from it.
    #[derive(Default)]
    struct Model {
        source: Mutex<u64>,
        store: Mutex<Option<u64>>,
    }

    fn check(guarded: bool, flush: bool) {
        let model = move || {
            let (stripes, model) = (Arc::new(Stripes::new()), Arc::new(Model::default()));
            let filler = {
                let (stripes, model) = (Arc::clone(&stripes), Arc::clone(&model));
                thread::spawn(move || {
                    let epoch = stripes.epoch(HASH);
                    let value = *model.source.lock().unwrap();
                    let insert = || *model.store.lock().unwrap() = Some(value);
                    if guarded {
                        stripes.fill(HASH, epoch, insert, || *model.store.lock().unwrap() = None);
                    } else {
                        insert();
                    }
                })
            };
            *model.source.lock().unwrap() = 1;
            if flush {
                stripes.bump_all();
                *model.store.lock().unwrap() = None;
            } else {
                stripes.invalidate(HASH, || *model.store.lock().unwrap() = None);
            }
            filler.join().unwrap();
            assert_ne!(*model.store.lock().unwrap(), Some(0), "the old value stayed");
        };
        shuttle::check_dfs(model, None);
    }

    #[test]
    fn in_every_interleaving_an_invalidated_value_goes() {
        check(true, false);
    }

    #[test]
    fn in_every_interleaving_a_flushed_value_goes() {
        check(true, true);
    }

    #[test]
    #[should_panic(expected = "the old value stayed")]
    fn without_the_stripes_an_invalidated_value_stays() {
        check(false, false);
    }
}
