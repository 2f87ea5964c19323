//! Single flight: one load per key in this process, however many ask.
//!
//! The load runs in a task of its own, so whoever began it may go away. An invalidation detaches the flight:
//! those who wait for it asked before the invalidation and get its answer, the next caller begins anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Span;

use crate::lock::lock;
use crate::{CacheError, CacheKey, Entry, Tier};

const SHARDS: usize = 64;

type Shard = HashMap<u128, Arc<Flight>>;

#[derive(Debug)]
pub(crate) struct Flights {
    shards: Vec<Mutex<Shard>>,
    count: AtomicUsize,
    limit: usize,
}

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) key: CacheKey,
    pub(crate) schema: u32,
    pub(crate) begun: Instant,
    detached: AtomicBool,
    /// Somebody waited for the whole soft timeout: the others needn't.
    pub(crate) slow: AtomicBool,
    state: watch::Sender<State>,
    /// The load's, for those who join to link to.
    pub(crate) span: Span,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// A value past its life that may stand in, as soon as one was found.
    pub(crate) stale: Option<(Arc<Entry>, Tier)>,
    pub(crate) done: Option<Outcome>,
}

pub(crate) type Outcome = Result<Arrived, CacheError>;

#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) entry: Arc<Entry>,
    pub(crate) tier: Tier,
    pub(crate) stored: bool,
    /// When the source was read; `None` when another tier answered.
    pub(crate) source_read_at: Option<Instant>,
}

pub(crate) enum Joined {
    Lead(Arc<Flight>),
    Follow(Arc<Flight>),
    /// Too many flights, or another key with the same hash is loading.
    Refused,
}

impl Flights {
    pub(crate) fn new(limit: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, count: AtomicUsize::new(0), limit }
    }

    /// Joins the key's flight if `fit` for the caller, else begins a new one in its place.
    pub(crate) fn join(
        &self,
        key: &CacheKey,
        schema: u32,
        fit: impl FnOnce(&Flight) -> bool,
        span: impl FnOnce() -> Span,
    ) -> Joined {
        let mut shard = self.shard(key.hash());
        if let Some(flight) = shard.get(&key.hash())
            && flight.schema == schema
            && flight.key == *key
            && fit(flight)
        {
            return Joined::Follow(Arc::clone(flight));
        }
        if self.count.load(Ordering::Relaxed) >= self.limit {
            return Joined::Refused;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let fresh = Arc::new(Flight {
            key: key.clone(),
            schema,
            begun: Instant::now(),
            detached: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            state: watch::Sender::new(State::default()),
            span: span(),
        });
        // One that this replaces isn't detached: its answer stays good for those who wait.
        shard.insert(key.hash(), Arc::clone(&fresh));
        Joined::Lead(fresh)
    }

    pub(crate) fn detach(&self, hash: u128) {
        if let Some(flight) = self.shard(hash).remove(&hash) {
            flight.detached.store(true, Ordering::SeqCst);
        }
    }

    pub(crate) fn detach_all(&self, meant: impl Fn(&CacheKey) -> bool) {
        for shard in &self.shards {
            lock(shard).retain(|_, flight| {
                let detached = meant(&flight.key);
                flight.detached.fetch_or(detached, Ordering::SeqCst);
                !detached
            });
        }
    }

    pub(crate) fn remove(&self, flight: &Arc<Flight>) {
        let hash = flight.key.hash();
        if let MapEntry::Occupied(there) = self.shard(hash).entry(hash)
            && Arc::ptr_eq(there.get(), flight)
        {
            there.remove();
        }
    }

    /// To be called once when a flight's task ends.
    pub(crate) fn landed(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn under_way(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn shard(&self, hash: u128) -> MutexGuard<'_, Shard> {
        lock(&self.shards[hash as usize % SHARDS])
    }
}

impl Flight {
    /// True once an invalidation made this load's answer too old for newcomers, and its stale value too.
    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::SeqCst)
    }

    pub(crate) fn offer_stale(&self, entry: Arc<Entry>, tier: Tier) {
        self.state.send_modify(|state| state.stale = Some((entry, tier)));
    }

    pub(crate) fn complete(&self, outcome: Outcome) {
        self.state.send_modify(|state| {
            state.done.get_or_insert(outcome);
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(crate) fn stale(&self) -> Option<(Arc<Entry>, Tier)> {
        self.state.borrow().stale.clone()
    }
}
