//! The cache as callers see it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::breaker::Breaker;
use crate::builder::Builder;
use crate::flight::Flights;
use crate::gate::Gate;
use crate::inner::Inner;
use crate::l1::L1;
use crate::l3::L3;
use crate::listen;
use crate::load::Load;
use crate::metrics::CacheMetrics;
use crate::probe;
use crate::read::{Ask, is_due};
use crate::redis::{DataSet, RedisBus, RedisRemote};
use crate::{Bus, CacheError, CacheKey, Hit, LoadCx, LoadError, LoadOutcome, Policy, Read, Remote};

const FLIGHTS: usize = 10_000;
/// Most undelivered invalidations that are tried again in the background.
const RETRIES: usize = 1024;

/// A cache in tiers. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct TieredCache {
    pub(crate) inner: Arc<Inner>,
    /// Stops the background tasks with the last clone.
    _stop: Arc<DropGuard>,
}

/// How the cache is doing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CacheHealth {
    /// L1 may answer: the bus was heard lately, or there is none.
    pub fence_open: bool,
    /// Time since the last answered read of the bus was sent, which is what the fence compares; zero without a bus.
    pub bus_lag: Duration,
    /// The shared tier is left alone after failures.
    pub breaker_open: bool,
    /// L3 is left alone after failures.
    pub l3_breaker_open: bool,
    /// Flights under way.
    pub flights: usize,
    /// Loads that ask the source.
    pub loads: usize,
    /// Loads that wait for the gate.
    pub queued: usize,
    /// Bytes in L1.
    pub l1_bytes: u64,
    /// Entries in L1.
    pub l1_entries: u64,
}

impl TieredCache {
    /// Starts to put a cache together. Its loads, writes and background tasks will run on `runtime`.
    pub fn builder(runtime: Handle) -> Builder {
        Builder::new(runtime)
    }

    pub(crate) fn start(parts: Builder) -> Self {
        let Builder { runtime, l1_bytes, namespace, redis, remote, l3, outbox, gate, longest_write, .. } = parts;
        let shared: Option<(Arc<dyn Remote>, Box<dyn Bus>)> = remote.or_else(|| {
            let redis = redis?;
            let data_set = DataSet::default();
            let bus = RedisBus::new(&redis, &namespace, Arc::clone(&data_set));
            Some((Arc::new(RedisRemote::new(redis, &namespace, data_set)), Box::new(bus)))
        });
        let (remote, bus) = shared.unzip();
        let (stop, metrics) = (CancellationToken::new(), CacheMetrics::default());
        let inner = Arc::new(Inner {
            runtime: runtime.clone(),
            l1: L1::new(l1_bytes, metrics.clone()),
            flights: Flights::new(FLIGHTS),
            gate: Gate::new(gate.0, gate.1, gate.2),
            retries: Semaphore::new(RETRIES),
            probing: Semaphore::new(1),
            longest_write,
            probe_every: parts.probe_every,
            links: parts.links,
            remote,
            l3: l3.map(|store| L3::new(store, namespace)),
            outbox,
            metrics,
            origin: rand::random(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: stop.clone(),
            breaker: Breaker::new(),
            started: Instant::now(),
            fence: AtomicU64::new(if bus.is_some() { 0 } else { u64::MAX }),
            echoes: Default::default(),
        });
        let weak = Arc::downgrade(&inner);
        inner.metrics.watch(weak.clone());
        if let Some(bus) = bus {
            runtime.spawn(stop.clone().run_until_cancelled_owned(listen::bus(weak.clone(), bus)));
            runtime.spawn(stop.clone().run_until_cancelled_owned(listen::breaker(weak.clone())));
            if inner.outbox.is_some() {
                runtime.spawn(stop.clone().run_until_cancelled_owned(listen::outbox(weak.clone())));
            }
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
        F: FnOnce(LoadCx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<LoadOutcome, LoadError>> + Send + 'static,
    {
        let inner = &self.inner;
        let ask = Ask { policy, read, begun: Instant::now() };
        let load = || -> Load { Box::new(|cx| load(cx).boxed()) };
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
    }
}

impl fmt::Debug for TieredCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCache").field("health", &self.health()).finish_non_exhaustive()
    }
}
