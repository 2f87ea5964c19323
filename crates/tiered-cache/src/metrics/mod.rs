//! Every metric of the cache: name, labels and meaning in one place. No label ever carries a key.

mod hot;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::inner::Inner;
use crate::{CacheError, Hit, Read};
use hot::Hot;

/// Bounds for operations of the shared tiers and for loads, in seconds.
const SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Counters by label.
#[derive(Debug, Clone, Default)]
struct Counters {
    coalesced: Family<Labels<1>, Counter>,
    leases: Family<Labels<2>, Counter>,
    fills: Family<Labels<3>, Counter>,
    refreshes: Family<Labels<2>, Counter>,
    stale: Family<Labels<2>, Counter>,
    unverified: Family<Labels<1>, Counter>,
    codec_errors: Family<Labels<2>, Counter>,
    errors: Family<Labels<2>, Counter>,
    invalidations: Family<Labels<1>, Counter>,
    probes: Family<Labels<2>, Counter>,
}

impl Counters {
    fn register(&self, to: &mut Registry) {
        to.register("cache_coalesced", "Answers from a load begun by another", self.coalesced.clone());
        to.register("cache_lease", "Requests for a lease by result", self.leases.clone());
        to.register("cache_fill", "Loaded values by tier and result", self.fills.clone());
        to.register("cache_refresh", "Early refreshes by result", self.refreshes.clone());
        to.register("cache_stale_served", "Answers past their life by reason", self.stale.clone());
        let help = "Answers while nothing said whether they were still right";
        to.register("cache_unverified_served", help, self.unverified.clone());
        to.register("cache_codec_errors", "Stored entries that could not be read", self.codec_errors.clone());
        to.register("cache_errors", "Reads that failed", self.errors.clone());
        to.register("cache_invalidations", "Notices to the shared tier by outcome", self.invalidations.clone());
        to.register("cache_consistency_probe", "Hits checked against the source", self.probes.clone());
    }
}

/// The cache's metrics.
#[derive(Debug, Clone)]
pub struct CacheMetrics {
    hot: Arc<Hot>,
    state: Arc<State>,
    counters: Counters,
    loads: Histograms<1>,
    operations: Histograms<3>,
    pub(crate) bus_gaps: Counter,
    pub(crate) bus_errors: Counter,
    pub(crate) bus_reconnects: Counter,
    pub(crate) log_errors: Counter,
    pub(crate) log_gaps: Counter,
    pub(crate) visible: Histogram,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for CacheMetrics {
    fn default() -> Self {
        Self {
            hot: Arc::default(),
            state: Arc::default(),
            counters: Counters::default(),
            loads: Family::new_with_constructor(histogram),
            operations: Family::new_with_constructor(histogram),
            bus_gaps: Counter::default(),
            bus_errors: Counter::default(),
            bus_reconnects: Counter::default(),
            log_errors: Counter::default(),
            log_gaps: Counter::default(),
            visible: histogram(),
        }
    }
}

impl CacheMetrics {
    /// Registers the metrics, once per registry.
    pub fn register(&self, to: &mut Registry) {
        to.register_collector(Box::new(Arc::clone(&self.hot)));
        to.register_collector(Box::new(Arc::clone(&self.state)));
        self.counters.register(to);
        to.register("cache_load_seconds", "Time that loads from the source took", self.loads.clone());
        to.register("cache_op_seconds", "Time that operations of shared tiers took", self.operations.clone());
        to.register("cache_bus_gap", "Times the bus lost something", self.bus_gaps.clone());
        to.register("cache_bus_errors", "Reads of the bus that failed", self.bus_errors.clone());
        let help = "Times the bus was read again after a failure";
        to.register("cache_bus_reconnects", help, self.bus_reconnects.clone());
        to.register("cache_log_errors", "Reads of the log that failed", self.log_errors.clone());
        let help = "Times everything was forgotten, since the log was another one or had lost something";
        to.register("cache_log_gap", help, self.log_gaps.clone());
        let help = "Time until this process's own notices came back by the bus";
        to.register("cache_invalidate_visible_seconds", help, self.visible.clone());
    }

    pub(crate) fn watch(&self, cache: Weak<Inner>) {
        drop(self.state.cache.set(cache));
    }

    pub(crate) fn served(&self, cache: &'static str, hit: &Hit, read: Read) {
        self.hot.served(cache, hit, read);
        let counters = &self.counters;
        if let Some(reason) = hit.stale {
            counters.stale.get_or_create(&[("cache", cache), ("reason", reason.as_str())]).inc();
        }
        if hit.unverified {
            counters.unverified.get_or_create(&[("cache", cache)]).inc();
        }
        if hit.collapsed {
            counters.coalesced.get_or_create(&[("cache", cache)]).inc();
        }
    }

    pub(crate) fn lease(&self, cache: &'static str, result: &'static str) {
        self.counters.leases.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }

    pub(crate) fn fill(&self, cache: &'static str, tier: &'static str, result: &'static str) {
        self.counters.fills.get_or_create(&[("cache", cache), ("tier", tier), ("result", result)]).inc();
    }

    pub(crate) fn refreshed(&self, cache: &'static str, result: &'static str) {
        self.counters.refreshes.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }

    pub(crate) fn codec_error(&self, cache: &'static str, result: &'static str) {
        self.counters.codec_errors.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }

    pub(crate) fn invalidations(&self, outcome: &'static str) {
        self.counters.invalidations.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn probed(&self, cache: &'static str, result: &'static str) {
        self.counters.probes.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }

    pub(crate) fn loaded(&self, cache: &'static str, took: Duration) {
        self.loads.get_or_create(&[("cache", cache)]).observe(took.as_secs_f64());
    }

    pub(crate) fn operation(&self, tier: &'static str, op: &'static str, took: Duration, ok: bool) {
        let labels = [("tier", tier), ("op", op), ("outcome", outcome(ok))];
        self.operations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, cache: &'static str, error: &CacheError) {
        let result = match error {
            CacheError::Load(_) => "load",
            CacheError::Timeout => "timeout",
            CacheError::Overloaded { .. } => "overloaded",
            CacheError::VersionNotReached { .. } => "version_not_reached",
            CacheError::Panicked => "panicked",
            CacheError::Closed => "closed",
            CacheError::Log(_) => "log",
        };
        self.counters.errors.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }
}

pub(crate) fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "error" }
}

#[derive(Debug, Default)]
struct State {
    cache: OnceLock<Weak<Inner>>,
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(inner) = self.cache.get().and_then(Weak::upgrade) else { return Ok(()) };
        let gone = inner.l1.gone();
        let health = inner.health();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let gauges = [
            ("cache_fence_open", "1: cached values may be used", u64::from(health.fence_open)),
            ("cache_log_replicas", "Replicas that read the log", count(inner.heard().replicas)),
            ("cache_flights", "Flights under way", count(health.flights)),
            ("cache_db_gate_in_use", "Loads that ask the source", count(health.loads)),
            ("cache_db_gate_queued", "Loads that wait for the gate", count(health.queued)),
            ("cache_l1_bytes", "Bytes in L1", health.l1_bytes),
            ("cache_l1_entries", "Entries in L1", health.l1_entries),
        ];
        let help = "Entries that left L1 by cause";
        let mut left = encoder.encode_descriptor("cache_l1_evictions", help, None, MetricType::Counter)?;
        let causes = [
            ("expired", &gone.expired),
            ("removed", &gone.removed),
            ("replaced", &gone.replaced),
            ("flushed", &gone.flushed),
            ("size", &gone.size),
        ];
        for (cause, entries) in causes {
            ConstCounter::new(entries.load(Relaxed)).encode(left.encode_family(&[("cause", cause)])?)?;
        }
        let help = "1: the tier is left alone after failures";
        let mut breakers = encoder.encode_descriptor("cache_breaker_state", help, None, MetricType::Gauge)?;
        for (tier, open) in [("l2", health.unfit.is_some()), ("l3", health.l3_breaker_open)] {
            ConstGauge::new(i64::from(open)).encode(breakers.encode_family(&[("tier", tier)])?)?;
        }
        let lags = [
            ("cache_log_lag_seconds", "Time since the last answered read of the log was sent", health.log_lag),
            ("cache_bus_lag_seconds", "Time since the last answered read of the bus was sent", health.bus_lag),
        ];
        for (name, help, lag) in lags {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(lag.as_secs_f64()).encode(encoder)?;
        }
        for (name, help, value) in gauges {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?;
        }
        Ok(())
    }
}
