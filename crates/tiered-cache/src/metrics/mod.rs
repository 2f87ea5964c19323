//! Every metric of the cache: name, labels and meaning in one place. No label ever carries a key.

mod hot;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::remote::Gap;
use crate::{Hit, Read, StaleReason};
use hot::Hot;

/// Bounds for operations of the shared tiers and of loads, in seconds.
const SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// The cache's metrics.
#[derive(Debug, Clone)]
pub struct CacheMetrics {
    /// `cache_requests_total` and `cache_served_age_seconds`: counted on every hit, so made for it.
    hot: Arc<Hot>,
    /// How long loads took.
    loads: Family<Cache, Histogram, fn() -> Histogram>,
    /// How long operations of the shared tiers took.
    operations: Family<Operation, Histogram, fn() -> Histogram>,
    /// Answers that came from a load somebody else had begun.
    coalesced: Family<Cache, Counter>,
    /// Requests for a lease.
    leases: Family<Outcome, Counter>,
    /// What became of loaded values.
    fills: Family<TierOutcome, Counter>,
    /// Early refreshes.
    refreshes: Family<Outcome, Counter>,
    /// Answers past their life.
    stale: Family<Stale, Counter>,
    /// Entries that couldn't be read.
    codec: Family<Outcome, Counter>,
    /// Reads that failed.
    errors: Family<Outcome, Counter>,
    /// Halves of invalidations.
    invalidations: Family<Invalidation, Counter>,
    gaps: Family<GapReason, Counter>,
    bus_errors: Counter,
    outbox_pending: Gauge,
    gate_rejected: Counter,
    /// Answers that a probe found older than allowed.
    pub(crate) probe_violations: Counter,
    pub(crate) probes: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cache {
    cache: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    tier: &'static str,
    op: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    cache: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierOutcome {
    cache: &'static str,
    tier: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stale {
    cache: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Invalidation {
    phase: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GapReason {
    reason: &'static str,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for CacheMetrics {
    fn default() -> Self {
        Self {
            hot: Arc::default(),
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
            gate_rejected: Counter::default(),
            probe_violations: Counter::default(),
            probes: Counter::default(),
        }
    }
}

impl CacheMetrics {
    /// Registers the metrics, once per registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Arc::clone(&self.hot)));
        registry.register("cache_load_seconds", "Time that loads from the source took", self.loads.clone());
        registry.register("cache_op_seconds", "Time that operations of shared tiers took", self.operations.clone());
        registry.register("cache_coalesced", "Answers from a load begun by another", self.coalesced.clone());
        registry.register("cache_lease", "Requests for a lease by result", self.leases.clone());
        registry.register("cache_fill", "Loaded values by tier and result", self.fills.clone());
        registry.register("cache_refresh", "Early refreshes by outcome", self.refreshes.clone());
        registry.register("cache_stale_served", "Answers past their life by reason", self.stale.clone());
        registry.register("cache_codec_errors", "Entries that could not be read", self.codec.clone());
        registry.register("cache_errors", "Reads that failed by error", self.errors.clone());
        registry.register("cache_invalidations", "Invalidations by phase and outcome", self.invalidations.clone());
        registry.register("cache_bus_gap", "Times the bus lost something", self.gaps.clone());
        registry.register("cache_bus_errors", "Reads of the bus that failed", self.bus_errors.clone());
        registry.register("cache_outbox_pending", "Undelivered invalidations seen last", self.outbox_pending.clone());
        registry.register("cache_db_gate_rejected", "Loads refused by the gate", self.gate_rejected.clone());
        registry.register("cache_consistency_probes", "Hits checked against the source", self.probes.clone());
        registry.register(
            "cache_consistency_probe_violations",
            "Checked hits that were older than allowed",
            self.probe_violations.clone(),
        );
    }

    pub(crate) fn served(&self, cache: &'static str, hit: &Hit, read: Read) {
        self.hot.served(cache, hit, read);
        if let Some(reason) = hit.stale {
            self.stale.get_or_create(&Stale { cache, reason: StaleReason::as_str(reason) }).inc();
        }
        if hit.collapsed {
            self.coalesced.get_or_create(&Cache { cache }).inc();
        }
    }

    pub(crate) fn loaded(&self, cache: &'static str, took: Duration) {
        self.loads.get_or_create(&Cache { cache }).observe(took.as_secs_f64());
    }

    pub(crate) fn operation(&self, tier: &'static str, op: &'static str, took: Duration, ok: bool) {
        let outcome = if ok { "ok" } else { "error" };
        self.operations.get_or_create(&Operation { tier, op, outcome }).observe(took.as_secs_f64());
    }

    pub(crate) fn lease(&self, cache: &'static str, result: &'static str) {
        self.leases.get_or_create(&Outcome { cache, result }).inc();
    }

    pub(crate) fn fill(&self, cache: &'static str, tier: &'static str, result: &'static str) {
        self.fills.get_or_create(&TierOutcome { cache, tier, result }).inc();
    }

    pub(crate) fn refreshed(&self, cache: &'static str, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.refreshes.get_or_create(&Outcome { cache, result }).inc();
    }

    pub(crate) fn codec_error(&self, cache: &'static str, result: &'static str) {
        self.codec.get_or_create(&Outcome { cache, result }).inc();
    }

    pub(crate) fn failed(&self, cache: &'static str, error: &crate::CacheError) {
        let result = match error {
            crate::CacheError::Load(_) => "load",
            crate::CacheError::Timeout => "timeout",
            crate::CacheError::Overloaded { .. } => {
                self.gate_rejected.inc();
                "overloaded"
            }
            crate::CacheError::VersionNotReached { .. } => "version_not_reached",
            crate::CacheError::Panicked => "panicked",
            crate::CacheError::Closed => "closed",
            crate::CacheError::Remote(_) => "remote",
        };
        self.errors.get_or_create(&Outcome { cache, result }).inc();
    }

    pub(crate) fn invalidated(&self, phase: &'static str, ok: bool) {
        let outcome = if ok { "ok" } else { "error" };
        self.invalidations.get_or_create(&Invalidation { phase, outcome }).inc();
    }

    pub(crate) fn bus_gap(&self, gap: Gap) {
        self.gaps.get_or_create(&GapReason { reason: gap.as_str() }).inc();
    }

    pub(crate) fn bus_failed(&self) {
        self.bus_errors.inc();
    }

    pub(crate) fn outbox_pending(&self, rows: usize) {
        self.outbox_pending.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }
}
