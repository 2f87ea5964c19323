//! Every metric of the cache: name, labels and meaning in one place. No label ever carries a key.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::{Hit, Kind, Read};

/// The cache's metrics.
#[derive(Debug, Clone, Default)]
pub struct CacheMetrics {
    requests: Family<Request, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    cache: &'static str,
    tier: &'static str,
    result: &'static str,
    level: &'static str,
}

impl CacheMetrics {
    /// Registers the metrics, once per registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("cache_requests", "Answers by tier and outcome", self.requests.clone());
    }

    pub(crate) fn served(&self, cache: &'static str, hit: &Hit, read: Read) {
        let result = match (hit.stale, hit.entry.kind) {
            (Some(_), _) => "stale",
            (None, Kind::NotFound) => "negative",
            (None, Kind::Value) => "hit",
        };
        let request = Request { cache, tier: hit.tier.as_str(), result, level: read.as_str() };
        self.requests.get_or_create(&request).inc();
    }
}
