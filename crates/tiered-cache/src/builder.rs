//! How a cache is put together.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::Span;

use crate::fence::Fence;
use crate::follow::follow;
use crate::gate::Gate;
use crate::inner::{Inner, Links};
use crate::l1::L1;
use crate::l3::L3;
use crate::listen;
use crate::lock::lock;
use crate::part::Part;
use crate::shared::Shared;
use crate::{Bus, ChangeLog, CopyStore, Remote, TieredCache, WhenBlind};

/// Collects the parts of a [`TieredCache`].
pub struct Builder {
    inner: Inner,
    bus: Option<Box<dyn Bus>>,
}

impl Builder {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { inner: Inner::new(runtime), bus: None }
    }

    /// Most bytes kept in this process; 0: none.
    pub fn l1(mut self, max_bytes: u64) -> Self {
        self.inner.l1 = L1::new(max_bytes);
        self
    }

    /// Where the source says what changed. Without it only this process's own writes are noticed, and there is no shared
    /// tier, since nothing says what in it is right.
    pub fn log(mut self, log: Arc<dyn ChangeLog>) -> Self {
        self.inner.fence = Fence::new(false);
        self.inner.log_part = Part::looked_at("the log of changes");
        self.inner.log = Some(log);
        self
    }

    /// What is done with cached values while nothing says whether they are still right.
    pub fn when_blind(mut self, when_blind: WhenBlind) -> Self {
        self.inner.when_blind = when_blind;
        self
    }

    /// The shared tier and its bus, used together with a log. Without them there is no L2, and others hear of writes by the
    /// log alone.
    pub fn remote(mut self, remote: Arc<dyn Remote>, bus: Box<dyn Bus>) -> Self {
        let (part, bus_part) = (Part::looked_at("the shared tier"), Part::used("the bus"));
        self.inner.shared = Some(Shared { remote, part, bus: bus_part, metrics: self.inner.metrics.clone() });
        self.bus = Some(bus);
        self
    }

    /// L3, used only together with a shared tier.
    pub fn l3(mut self, store: Arc<dyn CopyStore>) -> Self {
        self.inner.l3 = Some(L3::new(store));
        self
    }

    /// At most `permits` loads at once, about 70 % of the connections to the source, and `queue` waiting, none for
    /// longer than `wait`.
    pub fn load_gate(mut self, permits: usize, queue: usize, wait: Duration) -> Self {
        self.inner.gate = Gate::new(permits, queue, wait);
        self
    }

    /// Every so many hits per thread one is checked against the source; 0: none.
    pub fn probe_every(mut self, hits: u32) -> Self {
        self.inner.probe_every = hits;
        self
    }

    /// How spans find each other across replicas: `name` gives the current one as a short text, empty for none, that
    /// goes along with an invalidation; where that is applied, `link` ties the span of that to it.
    pub fn links(mut self, name: fn() -> String, link: fn(&Span, &str)) -> Self {
        self.inner.links = Links { name, link };
        self
    }

    /// Builds the cache and starts its background tasks.
    pub fn build(self) -> TieredCache {
        let Self { mut inner, mut bus } = self;
        if inner.log.is_none() && inner.shared.take().is_some() {
            tracing::warn!(name: "cache.no_log", target: "tiered_cache", "the shared tier isn't used: only a log says what in it is right");
            bus = None;
        }
        let inner = Arc::new(inner);
        if let Some(bus) = bus {
            let listening = listen::bus(Arc::downgrade(&inner), bus);
            inner.runtime.spawn(inner.stop.clone().run_until_cancelled_owned(listening));
        }
        if let Some(log) = &inner.log {
            let follower = inner.runtime.spawn(follow(Arc::downgrade(&inner), Arc::clone(log)));
            *lock(&inner.follower) = Some(follower);
        }
        let stop = Arc::new(inner.stop.clone().drop_guard());
        TieredCache { inner, _stop: stop }
    }
}
