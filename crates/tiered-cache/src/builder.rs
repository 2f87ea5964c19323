//! How a cache is put together.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::Span;

use crate::l3::Memcached;
use crate::{Bus, ChangeLog, CopyStore, Remote, TieredCache, WhenBlind};

/// Collects the parts of a [`TieredCache`].
pub struct Builder {
    pub(crate) runtime: Handle,
    pub(crate) l1_bytes: u64,
    pub(crate) remote: Option<(Arc<dyn Remote>, Box<dyn Bus>)>,
    pub(crate) l3: Option<Arc<dyn CopyStore>>,
    pub(crate) log: Option<Arc<dyn ChangeLog>>,
    pub(crate) when_blind: WhenBlind,
    pub(crate) gate: GateSize,
    pub(crate) probe_every: u32,
    pub(crate) links: Links,
}

/// See [`Builder::load_gate`].
pub(crate) struct GateSize {
    pub(crate) permits: usize,
    pub(crate) queue: usize,
    pub(crate) wait: Duration,
}

/// See [`Builder::links`].
pub(crate) struct Links {
    pub(crate) name: fn() -> String,
    pub(crate) link: fn(&Span, &str),
}

impl Builder {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            l1_bytes: 64 * 1024 * 1024,
            remote: None,
            l3: None,
            log: None,
            when_blind: WhenBlind::default(),
            gate: GateSize { permits: 14, queue: 1024, wait: Duration::from_secs(2) },
            probe_every: 10_000,
            links: Links { name: String::new, link: |_, _| () },
        }
    }

    /// Most bytes kept in this process; 0: none.
    pub fn l1(mut self, max_bytes: u64) -> Self {
        self.l1_bytes = max_bytes;
        self
    }

    /// Where the source says what changed. Without it only this process's own writes are noticed, and there is no shared
    /// tier, since nothing says what in it is right.
    pub fn log(mut self, log: Arc<dyn ChangeLog>) -> Self {
        self.log = Some(log);
        self
    }

    /// What is done with cached values while nothing says whether they are still right.
    pub fn when_blind(mut self, when_blind: WhenBlind) -> Self {
        self.when_blind = when_blind;
        self
    }

    /// The shared tier and its bus, used together with a log. Without them there is no L2, and others hear of writes by the
    /// log alone.
    pub fn remote(mut self, remote: Arc<dyn Remote>, bus: Box<dyn Bus>) -> Self {
        self.remote = Some((remote, bus));
        self
    }

    /// L3 in memcached: `host:port` or a `memcache://` URL, and what its keys begin with.
    pub fn memcached(self, url: &str, namespace: &str) -> Self {
        self.l3(Arc::new(Memcached::new(url, namespace)))
    }

    /// L3 elsewhere. Used only together with a shared tier.
    pub fn l3(mut self, store: Arc<dyn CopyStore>) -> Self {
        self.l3 = Some(store);
        self
    }

    /// At most `permits` loads at once, about 70 % of the connections to the source, and `queue` waiting, none for
    /// longer than `wait`.
    pub fn load_gate(mut self, permits: usize, queue: usize, wait: Duration) -> Self {
        self.gate = GateSize { permits, queue, wait };
        self
    }

    /// Every so many hits per thread one is checked against the source; 0: none.
    pub fn probe_every(mut self, hits: u32) -> Self {
        self.probe_every = hits;
        self
    }

    /// How spans find each other across replicas: `name` gives the current one as a short text, empty for none, that
    /// goes along with an invalidation; where that is applied, `link` ties the span of that to it.
    pub fn links(mut self, name: fn() -> String, link: fn(&Span, &str)) -> Self {
        self.links = Links { name, link };
        self
    }

    /// Builds the cache and starts its background tasks.
    pub fn build(self) -> TieredCache {
        TieredCache::start(self)
    }
}
