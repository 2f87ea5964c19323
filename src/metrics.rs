//! The service's own metrics: each is a field, whose name and meaning stand in the catalog.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{self, Registry, Unit};
use telemetry::Telemetry;
use telemetry::error_rate::ErrorRate;
use telemetry::process::{ProcessCollector, gauge};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::catalog::CATALOG;
use crate::health::Health;

/// OpenTelemetry's advice for `http.server.request.duration`, in seconds; 0.25 is the latency objective.
const HTTP_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// OpenTelemetry's advice for `db.client.operation.duration`, in seconds.
const DATABASE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// A timer that is later than the last of these is a thread that blocks.
const LAG_BUCKETS: [f64; 8] = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0];
const LAG_PERIOD: Duration = Duration::from_millis(250);

/// Names and values; all are written down in the code, so their number is bounded.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];
/// The trace that shows an observation of this size, as `trace_id`.
pub type Exemplar = [(&'static str, String); 1];
pub type Durations = HistogramWithExemplars<Exemplar>;

/// The service's own metrics; clones count into the same numbers.
#[derive(Clone)]
pub struct Metrics {
    /// A method is a known one or `_OTHER`; a route is a template or `unmatched`; 499 means that the client went away.
    pub requests: Family<[(&'static str, Cow<'static, str>); 3], Counter>,
    pub request_duration: Family<Labels<2>, Durations, fn() -> Durations>,
    /// The class is `4xx` or `5xx`.
    pub errors: Family<Labels<2>, Counter>,
    pub error_rate: Arc<ErrorRate>,
    pub in_flight: Gauge,
    /// The operation is the query's name in the code; the error type is empty or the kind of the failure.
    pub query_duration: Family<Labels<3>, Histogram, fn() -> Histogram>,
    pub pool_wait: Histogram,
    pub pool_timeouts: Counter,
    /// The state is `idle` or `used`.
    pub pool_connections: Family<Labels<1>, Gauge>,
    pub pool_max: Gauge,
    pub pool_pending: Gauge,
    /// Entries of the log of changes, as the database estimates.
    pub log_rows: Gauge,
    pub log_oldest: Gauge<f64, AtomicU64>,
    pub log_unreadable: Counter,
    /// The runtime is `worker` or `background`.
    loop_lag: Family<Labels<1>, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub fn new(r: &mut Registry, health: &Health) -> Self {
        let build: Family<Labels<2>, Gauge> = declared(r, "build_info", Family::default());
        build.get_or_create(&[("version", crate::VERSION), ("revision", crate::REVISION)]).set(1);
        let error_rate = Arc::new(ErrorRate::default());
        r.register_collector(Box::new(Arc::clone(&error_rate)));
        r.register_collector(Box::new(ProcessCollector(Handle::current())));
        r.register_collector(Box::new(MemoryCollector(health.clone())));
        let durations: fn() -> Durations = || Durations::new(HTTP_BUCKETS.into_iter());
        let queries: fn() -> Histogram = || Histogram::new(DATABASE_BUCKETS);
        let lags: fn() -> Histogram = || Histogram::new(LAG_BUCKETS);
        Self {
            requests: declared(r, "http_requests", Family::default()),
            request_duration: declared(r, "http_request_duration_seconds", Family::new_with_constructor(durations)),
            errors: declared(r, "http_errors", Family::default()),
            error_rate,
            in_flight: declared(r, "http_requests_in_flight", Gauge::default()),
            query_duration: declared(r, "db_client_operation_duration_seconds", Family::new_with_constructor(queries)),
            pool_wait: declared(r, "db_client_connection_wait_time_seconds", queries()),
            pool_timeouts: declared(r, "db_client_connection_timeouts", Counter::default()),
            pool_connections: declared(r, "db_client_connection_count", Family::default()),
            pool_max: declared(r, "db_client_connection_max", Gauge::default()),
            pool_pending: declared(r, "db_client_connection_pending_requests", Gauge::default()),
            log_rows: declared(r, "cache_log_rows", Gauge::default()),
            log_oldest: declared(r, "cache_log_oldest_seconds", Gauge::default()),
            log_unreadable: declared(r, "cache_log_unreadable", Counter::default()),
            loop_lag: declared(r, "event_loop_lag_seconds", Family::new_with_constructor(lags)),
        }
    }

    /// What telemetry counts about itself.
    pub fn register_telemetry(r: &mut Registry, telemetry: &Telemetry) {
        declared(r, "log_lines_dropped", telemetry.log.dropped.clone());
        declared(r, "panics", telemetry.log.panics.clone());
        declared(r, "telemetry_spans", telemetry.spans.clone());
    }

    /// Counts a statement or transaction; `error_type` is empty when it went well.
    pub fn queried(&self, name: &'static str, error_type: &'static str, took: Duration) {
        let labels = [("db_system_name", "postgresql"), ("db_operation_name", name), ("error_type", error_type)];
        self.query_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Measures how late this thread's, or this runtime's, timers fire, for as long as it is polled.
    pub async fn watch_lag(self, runtime: &'static str) {
        let lag = self.loop_lag.get_or_create_owned(&[("runtime", runtime)]);
        loop {
            let due = Instant::now() + LAG_PERIOD;
            sleep_until(due).await;
            lag.observe(due.elapsed().as_secs_f64());
        }
    }
}

/// Registers a metric under its declared name. An undeclared one would have no help and be left out of scrapes.
fn declared<M: registry::Metric + Clone>(registry: &mut Registry, name: &str, metric: M) -> M {
    let help = CATALOG.metric(name).map_or("", |declared| declared.help);
    match name.strip_suffix("_seconds") {
        Some(stem) => registry.register_with_unit(stem, help, Unit::Seconds, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
    metric
}

/// What the latest check saw.
#[derive(Debug)]
struct MemoryCollector(Health);

impl Collector for MemoryCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let memory = self.0.report().memory;
        let (used, limit) = (memory.used.unwrap_or_default(), memory.limit.unwrap_or_default());
        let used_help = "Working set of the cgroup, or of the process where MEMORY_LIMIT is set.";
        gauge(&mut encoder, "memory_used", used_help, Some(&Unit::Bytes), used)?;
        gauge(&mut encoder, "memory_limit", "Memory that may be used; 0: no limit.", Some(&Unit::Bytes), limit)
    }
}

/// A count as a gauge wants it.
pub fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Observes a duration; with an exemplar when the request is traced.
pub fn observe(histogram: &Durations, took: Duration, trace_id: Option<String>) {
    let exemplar = trace_id.map(|id| [("trace_id", id)]);
    let at = exemplar.is_some().then(SystemTime::now);
    histogram.observe(took.as_secs_f64(), exemplar, at);
}
