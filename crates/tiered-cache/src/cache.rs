//! The cache as callers see it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use crate::builder::Builder;
use crate::gauges::Gauges;
use crate::inner::Inner;
use crate::load::Load;
use crate::lock::lock;
use crate::probe;
use crate::read::{Ask, is_due};
use crate::{CacheError, CacheHealth, CacheKey, Hit, LoadError, Loaded, Policy, Read};

/// A cache in tiers. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct TieredCache {
    pub(crate) inner: Arc<Inner>,
    /// Stops the background tasks with the last clone.
    pub(crate) _stop: Arc<DropGuard>,
}

impl TieredCache {
    /// Starts to put a cache together. Its loads, writes and background tasks will run on `runtime`.
    pub fn builder(runtime: Handle) -> Builder {
        Builder::new(runtime)
    }

    /// Looks in L1 alone: no waiting, no allocation, and no early refresh, which a hit of `get_or_load` begins.
    pub fn peek(&self, key: &CacheKey, policy: &Policy) -> Option<Hit> {
        self.inner.lookup(key, Ask { policy, read: Read::Bounded, begun: Instant::now() })
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
            inner.metrics.errors.inc(policy.cache, error.as_str());
        }
        outcome
    }

    /// How the cache is doing.
    pub fn health(&self) -> CacheHealth {
        self.inner.health()
    }

    /// Registers the cache's metrics, once per registry.
    pub fn register(&self, to: &mut Registry) {
        self.inner.metrics.register(to);
        to.register_collector(Box::new(Gauges(Arc::downgrade(&self.inner))));
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
