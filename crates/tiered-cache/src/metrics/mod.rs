//! Every metric of the cache: name, labels and meaning in one place. No label ever carries a key.

mod hot;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::{CacheError, CacheHealth, Hit, Read};
use hot::Hot;

/// Bounds for operations of the shared tiers and for loads, in seconds.
const SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// The cache's metrics.
#[derive(Debug, Clone)]
pub struct CacheMetrics {
    hot: Arc<Hot>,
    state: Arc<State>,
    loads: Histograms<1>,
    operations: Histograms<3>,
    coalesced: Counters<1>,
    leases: Counters<2>,
    fills: Counters<3>,
    refreshes: Counters<2>,
    stale: Counters<2>,
    codec: Counters<2>,
    errors: Counters<2>,
    invalidations: Counters<2>,
    gaps: Counters<1>,
    bus_errors: Counter,
    outbox_pending: Gauge,
    probes: Counters<2>,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for CacheMetrics {
    fn default() -> Self {
        Self {
            hot: Arc::default(),
            state: Arc::default(),
            loads: Family::new_with_constructor(histogram),
            operations: Family::new_with_constructor(histogram),
            coalesced: Family::default(),
            leases: Family::default(),
            fills: Family::default(),
            refreshes: Family::default(),
            stale: Family::default(),
            codec: Family::default(),
            errors: Family::default(),
            invalidations: Family::default(),
            gaps: Family::default(),
            bus_errors: Counter::default(),
            outbox_pending: Gauge::default(),
            probes: Family::default(),
        }
    }
}

impl CacheMetrics {
    /// Registers the metrics, once per registry.
    pub fn register(&self, to: &mut Registry) {
        to.register_collector(Box::new(Arc::clone(&self.hot)));
        to.register_collector(Box::new(Arc::clone(&self.state)));
        to.register("cache_load_seconds", "Time that loads from the source took", self.loads.clone());
        to.register("cache_op_seconds", "Time that operations of shared tiers took", self.operations.clone());
        to.register("cache_coalesced", "Answers from a load begun by another", self.coalesced.clone());
        to.register("cache_lease", "Requests for a lease by result", self.leases.clone());
        to.register("cache_fill", "Loaded values by tier and result", self.fills.clone());
        to.register("cache_refresh", "Early refreshes by result", self.refreshes.clone());
        to.register("cache_stale_served", "Answers past their life by reason", self.stale.clone());
        to.register("cache_codec_errors", "Stored entries that could not be read", self.codec.clone());
        to.register("cache_errors", "Reads that failed", self.errors.clone());
        to.register("cache_invalidations", "Invalidations by phase and outcome", self.invalidations.clone());
        to.register("cache_bus_gap", "Times the bus lost something", self.gaps.clone());
        to.register("cache_bus_errors", "Reads of the bus that failed", self.bus_errors.clone());
        to.register("cache_outbox_pending", "Undelivered invalidations", self.outbox_pending.clone());
        to.register("cache_consistency_probe", "Hits checked against the source", self.probes.clone());
    }

    /// Where the gauges of the present state are read from.
    pub(crate) fn watch(&self, health: impl Fn() -> Option<CacheHealth> + Send + Sync + 'static) {
        drop(self.state.0.set(Box::new(health)));
    }

    pub(crate) fn served(&self, cache: &'static str, hit: &Hit, read: Read) {
        self.hot.served(cache, hit, read);
        if let Some(reason) = hit.stale {
            self.stale.get_or_create(&[("cache", cache), ("reason", reason.as_str())]).inc();
        }
        if hit.collapsed {
            self.coalesced.get_or_create(&[("cache", cache)]).inc();
        }
    }

    pub(crate) fn loaded(&self, cache: &'static str, took: Duration) {
        self.loads.get_or_create(&[("cache", cache)]).observe(took.as_secs_f64());
    }

    pub(crate) fn operation(&self, tier: &'static str, op: &'static str, took: Duration, ok: bool) {
        let labels = [("tier", tier), ("op", op), ("outcome", outcome(ok))];
        self.operations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn lease(&self, cache: &'static str, result: &'static str) {
        self.leases.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }

    pub(crate) fn fill(&self, cache: &'static str, tier: &'static str, result: &'static str) {
        self.fills.get_or_create(&[("cache", cache), ("tier", tier), ("result", result)]).inc();
    }

    pub(crate) fn refreshed(&self, cache: &'static str, ok: bool) {
        self.refreshes.get_or_create(&[("cache", cache), ("result", outcome(ok))]).inc();
    }

    pub(crate) fn codec_error(&self, cache: &'static str, result: &'static str) {
        self.codec.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }

    pub(crate) fn failed(&self, cache: &'static str, error: &CacheError) {
        let result = match error {
            CacheError::Load(_) => "load",
            CacheError::Timeout => "timeout",
            CacheError::Overloaded { .. } => "overloaded",
            CacheError::VersionNotReached { .. } => "version_not_reached",
            CacheError::Panicked => "panicked",
            CacheError::Closed => "closed",
            CacheError::Remote(_) => "remote",
        };
        self.errors.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }

    pub(crate) fn invalidated(&self, phase: &'static str, ok: bool) {
        self.invalidations.get_or_create(&[("phase", phase), ("outcome", outcome(ok))]).inc();
    }

    pub(crate) fn bus_gap(&self, reason: &'static str) {
        self.gaps.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn bus_failed(&self) {
        self.bus_errors.inc();
    }

    pub(crate) fn outbox_pending(&self, rows: usize) {
        self.outbox_pending.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    pub(crate) fn probed(&self, cache: &'static str, result: &'static str) {
        self.probes.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }
}

fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "error" }
}

type ReadHealth = Box<dyn Fn() -> Option<CacheHealth> + Send + Sync>;

/// The gauges, read when they are asked for.
#[derive(Default)]
struct State(OnceLock<ReadHealth>);

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(health) = self.0.get().and_then(|read| read()) else { return Ok(()) };
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let gauges = [
            ("cache_fence_open", "1: L1 may answer", u64::from(health.fence_open)),
            ("cache_breaker_open", "1: the shared tier is left alone", u64::from(health.breaker_open)),
            ("cache_flights", "Flights under way", count(health.flights)),
            ("cache_db_gate_in_use", "Loads that ask the source", count(health.loads)),
            ("cache_db_gate_queued", "Loads that wait for the gate", count(health.queued)),
            ("cache_l1_bytes", "Bytes in L1", health.l1_bytes),
            ("cache_l1_entries", "Entries in L1", health.l1_entries),
        ];
        for (name, help, value) in gauges {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?;
        }
        Ok(())
    }
}
