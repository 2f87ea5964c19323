//! The cache as callers see it.

use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::builder::Builder;
use crate::fence::Fence;
use crate::flight::{Flights, lock};
use crate::follow::follow;
use crate::gate::Gate;
use crate::inner::Inner;
use crate::l1::L1;
use crate::l3::L3;
use crate::listen;
use crate::load::Load;
use crate::metrics::CacheMetrics;
use crate::probe;
use crate::read::{Ask, is_due};
use crate::recent::Recent;
use crate::state::State;
use crate::untold::Untold;
use crate::{CacheError, CacheHealth, CacheKey, Hit, LoadError, Loaded, Policy, Read};

const FLIGHTS: usize = 10_000;

/// A cache in tiers. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct TieredCache {
    pub(crate) inner: Arc<Inner>,
    /// Stops the background tasks with the last clone.
    _stop: Arc<DropGuard>,
}

impl TieredCache {
    /// Starts to put a cache together. Its loads, writes and background tasks will run on `runtime`.
    pub fn builder(runtime: Handle) -> Builder {
        Builder::new(runtime)
    }

    pub(crate) fn start(parts: Builder) -> Self {
        let Builder { runtime, l1_bytes, remote: shared, l3, log, gate, .. } = parts;
        if shared.is_some() && log.is_none() {
            tracing::warn!(name: "cache.no_log", target: "tiered_cache", "the shared tier isn't used: only a log says what in it is right");
        }
        let (remote, bus) = shared.filter(|_| log.is_some()).unzip();
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            runtime: runtime.clone(),
            l1: L1::new(l1_bytes),
            flights: Flights::new(FLIGHTS),
            gate: Gate::new(gate.permits, gate.queue, gate.wait),
            probing: Semaphore::new(1),
            probe_every: parts.probe_every,
            links: parts.links,
            when_blind: parts.when_blind,
            log_state: if log.is_some() { State::unknown("the log of changes") } else { State::well("no log") },
            remote_state: if remote.is_some() { State::unknown("the shared tier") } else { State::well("no tier") },
            fence: Fence::new(log.is_none()),
            log,
            remote,
            l3: l3.map(L3::new),
            metrics: CacheMetrics::default(),
            // Below 2^53, for Lua's sake, and never 0.
            replica: rand::random_range(1..1 << 53),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: stop.clone(),
            started: Instant::now(),
            recent: Recent::default(),
            untold: Untold::default(),
            heard: Mutex::default(),
            newest: AtomicU64::new(0),
            echoes: Mutex::default(),
            follower: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        inner.metrics.watch(weak.clone());
        if let Some(bus) = bus {
            runtime.spawn(stop.clone().run_until_cancelled_owned(listen::bus(weak.clone(), bus)));
        }
        if let Some(log) = &inner.log {
            let follower = runtime.spawn(follow(weak, Arc::clone(log)));
            *lock(&inner.follower) = Some(follower);
        }
        Self { inner, _stop: Arc::new(stop.drop_guard()) }
    }

    /// Looks in L1 alone: no waiting, no allocation.
    pub fn peek(&self, key: &CacheKey, policy: &Policy) -> Option<Hit> {
        self.inner.peek(key, policy, Instant::now())
    }

    /// The value of `key`, from the nearest tier that has it, else from `load`.
    ///
    /// The load runs in a task of its own on the cache's runtime and is shared by all who ask meanwhile. Dropping
    /// the returned future changes nothing for them.
    /// Fails when no tier has the value and the source failed, was too slow or too busy.
    pub async fn get_or_load<F, Fut>(
        &self,
        key: &CacheKey,
        policy: &Policy,
        read: Read,
        load: F,
    ) -> Result<Hit, CacheError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded, LoadError>> + Send + 'static,
    {
        let inner = &self.inner;
        let ask = Ask { policy, read, begun: Instant::now() };
        let load = || -> Load { Box::new(|| load().boxed()) };
        if let Some(hit) = inner.lookup(key, ask) {
            if hit.stale.is_none() && is_due(&hit.entry, policy, ask.begun) {
                inner.refresh(key, policy, &hit.entry, load());
            } else if probe::is_due(inner.probe_every) {
                inner.probe(key, policy, &hit.entry, load());
            }
            return Ok(hit);
        }
        // Boxed: the future of a hit stays small.
        let outcome = Box::pin(inner.miss(key, ask, load())).await;
        if let Err(error) = &outcome {
            inner.metrics.failed(policy.cache, error);
        }
        outcome
    }

    /// How the cache is doing.
    pub fn health(&self) -> CacheHealth {
        self.inner.health()
    }

    /// The cache's metrics, to be registered once.
    pub fn metrics(&self) -> &CacheMetrics {
        &self.inner.metrics
    }

    /// Lets loads and writes finish for `grace`, then stops everything. New loads are refused at once.
    pub async fn shutdown(&self, grace: Duration) {
        let inner = &self.inner;
        inner.closing.cancel();
        inner.tasks.close();
        if tokio::time::timeout(grace, inner.tasks.wait()).await.is_err() {
            tracing::warn!(name: "cache.tasks_cut", target: "tiered_cache", tasks = inner.tasks.len(), "stopped before all was done");
        }
        inner.stop.cancel();
        // Bounded by itself.
        let follower = lock(&inner.follower).take();
        if let Some(follower) = follower {
            drop(follower.await);
        }
    }
}

impl fmt::Debug for TieredCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCache").field("health", &self.health()).finish_non_exhaustive()
    }
}
