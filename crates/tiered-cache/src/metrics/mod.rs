//! What the cache counts and measures, each with its name, labels and meaning; `gauges` has what is only read. No label
//! ever carries a key.

mod hot;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::{Hit, Read};
use hot::Hot;

/// Bounds for operations of the shared tiers and for loads, in seconds.
const SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Counts results for each kind of thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Results(Family<Labels<2>, Counter>);

impl Results {
    pub(crate) fn inc(&self, cache: &'static str, result: &'static str) {
        self.0.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }
}

/// What things took, by labels.
#[derive(Debug, Clone)]
struct Times<const N: usize>(Family<Labels<N>, Histogram, fn() -> Histogram>);

impl<const N: usize> Default for Times<N> {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(SECONDS)))
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct CacheMetrics {
    hot: Arc<Hot>,
    coalesced: Family<Labels<1>, Counter>,
    stale: Family<Labels<2>, Counter>,
    unverified: Family<Labels<1>, Counter>,
    fills: Family<Labels<3>, Counter>,
    invalidations: Family<Labels<1>, Counter>,
    loads: Times<1>,
    operations: Times<3>,
    pub(crate) leases: Results,
    pub(crate) refreshes: Results,
    pub(crate) codec_errors: Results,
    pub(crate) errors: Results,
    pub(crate) probes: Results,
    pub(crate) bus_gaps: Counter,
    pub(crate) bus_errors: Counter,
    pub(crate) bus_reconnects: Counter,
    pub(crate) log_errors: Counter,
    pub(crate) log_gaps: Counter,
    visible: Times<0>,
}

impl CacheMetrics {
    pub(crate) fn register(&self, to: &mut Registry) {
        to.register_collector(Box::new(Arc::clone(&self.hot)));
        to.register("cache_coalesced", "Answers from a load begun by another", self.coalesced.clone());
        to.register("cache_lease", "Requests for a lease by result", self.leases.0.clone());
        to.register("cache_fill", "Loaded values by tier and result", self.fills.clone());
        to.register("cache_refresh", "Early refreshes by result", self.refreshes.0.clone());
        to.register("cache_stale_served", "Answers past their life by reason", self.stale.clone());
        let help = "Answers while nothing said whether they were still right";
        to.register("cache_unverified_served", help, self.unverified.clone());
        to.register("cache_codec_errors", "Stored entries that could not be read", self.codec_errors.0.clone());
        to.register("cache_errors", "Reads that failed", self.errors.0.clone());
        to.register("cache_invalidations", "Notices to the shared tier by outcome", self.invalidations.clone());
        to.register("cache_consistency_probe", "Hits checked against the source", self.probes.0.clone());
        to.register("cache_load_seconds", "Time that loads from the source took", self.loads.0.clone());
        to.register("cache_op_seconds", "Time that operations of the shared tier took", self.operations.0.clone());
        to.register("cache_bus_gap", "Times the bus lost something", self.bus_gaps.clone());
        to.register("cache_bus_errors", "Reads of the bus that failed", self.bus_errors.clone());
        let help = "Times the bus was read again after a failure";
        to.register("cache_bus_reconnects", help, self.bus_reconnects.clone());
        to.register("cache_log_errors", "Reads of the log that failed", self.log_errors.clone());
        let help = "Times everything was forgotten, since the log was another one or had lost something";
        to.register("cache_log_gap", help, self.log_gaps.clone());
        let help = "Time until this process's own notices came back by the bus";
        to.register("cache_invalidate_visible_seconds", help, self.visible.0.clone());
    }

    pub(crate) fn served(&self, cache: &'static str, hit: &Hit, read: Read) {
        self.hot.served(cache, hit, read);
        if let Some(reason) = hit.stale {
            self.stale.get_or_create(&[("cache", cache), ("reason", reason.as_str())]).inc();
        }
        if hit.unverified {
            self.unverified.get_or_create(&[("cache", cache)]).inc();
        }
        if hit.collapsed {
            self.coalesced.get_or_create(&[("cache", cache)]).inc();
        }
    }

    pub(crate) fn fill(&self, cache: &'static str, tier: &'static str, result: &'static str) {
        self.fills.get_or_create(&[("cache", cache), ("tier", tier), ("result", result)]).inc();
    }

    pub(crate) fn invalidated(&self, ok: bool) {
        self.invalidations.get_or_create(&[("outcome", outcome(ok))]).inc();
    }

    pub(crate) fn loaded(&self, cache: &'static str, took: Duration) {
        self.loads.0.get_or_create(&[("cache", cache)]).observe(took.as_secs_f64());
    }

    pub(crate) fn visible(&self, after: Duration) {
        self.visible.0.get_or_create(&[]).observe(after.as_secs_f64());
    }

    pub(crate) fn operation(&self, op: &'static str, took: Duration, ok: bool) {
        let labels = [("tier", "l2"), ("op", op), ("outcome", outcome(ok))];
        self.operations.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// The label of an outcome.
pub(crate) fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "error" }
}
