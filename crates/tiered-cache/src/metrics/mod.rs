//! Every metric of the cache: name, labels and meaning in one place. No label ever carries a key.

mod hot;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::inner::Inner;
use crate::{CacheError, Hit, Read};
use hot::Hot;

/// Bounds for operations of the shared tiers and for loads, in seconds.
const SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Makes of one list the counters, their registration, and a method of `CacheMetrics` that counts one up.
macro_rules! counters {
    ($($count:ident($($label:ident),+) $name:literal $help:literal;)+) => {
        #[derive(Debug, Clone, Default)]
        struct Counters { $($count: Family<Labels<{ [$(stringify!($label)),+].len() }>, Counter>,)+ }

        impl Counters {
            fn register(&self, to: &mut Registry) {
                $(to.register($name, $help, self.$count.clone());)+
            }
        }

        impl CacheMetrics {
            $(pub(crate) fn $count(&self, $($label: &'static str),+) {
                self.counters.$count.get_or_create(&[$((stringify!($label), $label)),+]).inc();
            })+
        }
    };
}

counters! {
    coalesced(cache) "cache_coalesced" "Answers from a load begun by another";
    lease(cache, result) "cache_lease" "Requests for a lease by result";
    fill(cache, tier, result) "cache_fill" "Loaded values by tier and result";
    refreshed(cache, result) "cache_refresh" "Early refreshes by result";
    stale(cache, reason) "cache_stale_served" "Answers past their life by reason";
    codec_error(cache, result) "cache_codec_errors" "Stored entries that could not be read";
    error(cache, result) "cache_errors" "Reads that failed";
    invalidated(phase, outcome) "cache_invalidations" "Invalidations by phase and outcome";
    bus_gap(reason) "cache_bus_gap" "Times the bus lost something";
    probed(cache, result) "cache_consistency_probe" "Hits checked against the source";
}

/// The cache's metrics.
#[derive(Debug, Clone)]
pub struct CacheMetrics {
    hot: Arc<Hot>,
    state: Arc<State>,
    counters: Counters,
    loads: Histograms<1>,
    operations: Histograms<3>,
    pub(crate) bus_errors: Counter,
    pub(crate) bus_reconnects: Counter,
    pub(crate) visible: Histogram,
    pub(crate) outbox_pending: Gauge,
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
            bus_errors: Counter::default(),
            bus_reconnects: Counter::default(),
            visible: histogram(),
            outbox_pending: Gauge::default(),
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
        to.register("cache_bus_errors", "Reads of the bus that failed", self.bus_errors.clone());
        let help = "Times the bus was read again after a failure";
        to.register("cache_bus_reconnects", help, self.bus_reconnects.clone());
        let help = "Time until this process's own invalidations came back by the bus";
        to.register("cache_invalidate_visible_seconds", help, self.visible.clone());
        to.register("cache_outbox_pending", "Undelivered invalidations", self.outbox_pending.clone());
    }

    pub(crate) fn watch(&self, cache: Weak<Inner>) {
        drop(self.state.cache.set(cache));
    }

    pub(crate) fn served(&self, cache: &'static str, hit: &Hit, read: Read) {
        self.hot.served(cache, hit, read);
        if let Some(reason) = hit.stale {
            self.stale(cache, reason.as_str());
        }
        if hit.collapsed {
            self.coalesced(cache);
        }
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
            CacheError::Remote(_) => "remote",
        };
        self.error(cache, result);
    }

    pub(crate) fn evicted(&self, cause: &'static str, entries: u64) {
        self.state.evictions.get_or_create(&[("cause", cause)]).inc_by(entries);
    }
}

pub(crate) fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "error" }
}

#[derive(Debug, Default)]
struct State {
    cache: OnceLock<Weak<Inner>>,
    evictions: Family<Labels<1>, Counter>,
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(inner) = self.cache.get().and_then(Weak::upgrade) else { return Ok(()) };
        inner.l1.settle();
        let health = inner.health();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let gauges = [
            ("cache_fence_open", "1: L1 may answer", u64::from(health.fence_open)),
            ("cache_flights", "Flights under way", count(health.flights)),
            ("cache_db_gate_in_use", "Loads that ask the source", count(health.loads)),
            ("cache_db_gate_queued", "Loads that wait for the gate", count(health.queued)),
            ("cache_l1_bytes", "Bytes in L1", health.l1_bytes),
            ("cache_l1_entries", "Entries in L1", health.l1_entries),
        ];
        let help = "Entries that left L1 by cause";
        self.evictions.encode(encoder.encode_descriptor("cache_l1_evictions", help, None, MetricType::Counter)?)?;
        let help = "1: the tier is left alone after failures";
        let mut breakers = encoder.encode_descriptor("cache_breaker_state", help, None, MetricType::Gauge)?;
        for (tier, open) in [("l2", health.breaker_open), ("l3", health.l3_breaker_open)] {
            ConstGauge::new(i64::from(open)).encode(breakers.encode_family(&[("tier", tier)])?)?;
        }
        let help = "Time since the last answered read of the bus was sent";
        let lag = encoder.encode_descriptor("cache_bus_lag_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(health.bus_lag.as_secs_f64()).encode(lag)?;
        for (name, help, value) in gauges {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?;
        }
        Ok(())
    }
}
