//! Metrics: each a field, its text the help that Prometheus shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::error_rate::ErrorRate;

/// OpenTelemetry's advice for `http.server.request.duration`, in seconds; 0.25 is the latency objective.
const HTTP_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// OpenTelemetry's advice for `db.client.operation.duration`, in seconds.
const DATABASE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// A known method, or `_OTHER`.
    pub http_request_method: &'static str,
    /// The template of the route, or `unmatched`.
    pub http_route: &'static str,
    /// The status; 499 for a request whose client went away.
    pub http_response_status_code: u16,
}

/// Labels of a duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    /// A known method, or `_OTHER`.
    pub http_request_method: &'static str,
    /// The template of the route, or `unmatched`.
    pub http_route: &'static str,
}

/// Labels of an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    /// The template of the route, or `unmatched`.
    pub http_route: &'static str,
    /// `4xx` or `5xx`.
    pub class: &'static str,
}

/// Labels of a database operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DatabaseLabels {
    /// Always `postgresql`.
    pub db_system_name: &'static str,
    /// The name of the query in the code.
    pub db_operation_name: &'static str,
    /// Empty, or the kind of the failure.
    pub error_type: &'static str,
}

/// State of pooled connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    /// `idle` or `used`.
    pub state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    revision: &'static str,
}

/// Label of an exemplar.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Exemplar {
    /// The trace that shows an observation of this size.
    pub trace_id: String,
}

/// A histogram in seconds with exemplars.
pub type Durations = HistogramWithExemplars<Exemplar>;

/// The service's own metrics; clones count into the same numbers.
#[derive(Clone)]
pub struct Metrics {
    /// Answered requests.
    pub requests: Family<RequestLabels, Counter>,
    /// Time from the request's head to the answer's.
    pub request_duration: Family<DurationLabels, Durations, fn() -> Durations>,
    /// Answers with status 400 and above.
    pub errors: Family<ErrorLabels, Counter>,
    /// Share of such answers over the last minute.
    pub error_rate: Arc<ErrorRate>,
    /// Requests being worked on.
    pub in_flight: Gauge,
    /// Log lines that stdout didn't take in time.
    pub log_dropped: Counter,
    /// Panics that were caught.
    pub panics: Counter,
    /// Time of a statement or transaction.
    pub query_duration: Family<DatabaseLabels, Histogram, fn() -> Histogram>,
    /// Wait for a pooled connection.
    pub pool_wait: Histogram,
    /// Waits that took too long.
    pub pool_timeouts: Counter,
    /// Pooled connections by state.
    pub pool_connections: Family<PoolLabels, Gauge>,
    /// Pooled connections at most.
    pub pool_max: Gauge,
    /// Callers that wait for a connection.
    pub pool_pending: Gauge,
    /// Share of errors as last computed.
    error_percent: Gauge<f64, AtomicU64>,
    process: ProcessMetrics,
}

/// What the operating system and the runtime say; read when somebody scrapes.
#[derive(Clone, Default)]
struct ProcessMetrics {
    cpu_seconds: Counter<f64, AtomicU64>,
    resident_bytes: Gauge<i64, AtomicI64>,
    open_fds: Gauge,
    max_fds: Gauge,
    threads: Gauge,
    start_time: Gauge<f64, AtomicU64>,
    runtime_workers: Gauge,
    runtime_tasks: Gauge,
    runtime_queue: Gauge,
}

impl Metrics {
    /// Makes and registers all of them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_duration: Family::new_with_constructor(|| Durations::new(HTTP_BUCKETS.into_iter())),
            errors: Family::default(),
            error_rate: Arc::default(),
            in_flight: Gauge::default(),
            log_dropped: Counter::default(),
            panics: Counter::default(),
            query_duration: Family::new_with_constructor(|| Histogram::new(DATABASE_BUCKETS)),
            pool_wait: Histogram::new(DATABASE_BUCKETS),
            pool_timeouts: Counter::default(),
            pool_connections: Family::default(),
            pool_max: Gauge::default(),
            pool_pending: Gauge::default(),
            error_percent: Gauge::default(),
            process: ProcessMetrics::default(),
        };
        metrics.register_http(registry);
        metrics.register_database(registry);
        metrics.process.register(registry);
        let build: Family<BuildLabels, Gauge> = Family::default();
        build.get_or_create(&BuildLabels { version: crate::VERSION, revision: crate::REVISION }).set(1);
        registry.register("build_info", "Version and commit of the running program", build);
        metrics
    }

    fn register_http(&self, registry: &mut Registry) {
        registry.register("http_requests", "Answered requests", self.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request's head to the answer's",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        registry.register("http_errors", "Answers with status 400 and above", self.errors.clone());
        registry.register(
            "http_error_rate",
            "Percent of such answers over the last minute",
            self.error_percent.clone(),
        );
        registry.register("http_requests_in_flight", "Requests being worked on", self.in_flight.clone());
        registry.register("log_lines_dropped", "Log lines that stdout did not take in time", self.log_dropped.clone());
        registry.register("panics", "Panics that were caught", self.panics.clone());
    }

    fn register_database(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "db_client_operation_duration",
            "Time of a statement or transaction",
            Unit::Seconds,
            self.query_duration.clone(),
        );
        registry.register_with_unit(
            "db_client_connection_wait_time",
            "Wait for a pooled connection",
            Unit::Seconds,
            self.pool_wait.clone(),
        );
        registry.register("db_client_connection_timeouts", "Waits that took too long", self.pool_timeouts.clone());
        registry.register("db_client_connection_count", "Pooled connections by state", self.pool_connections.clone());
        registry.register("db_client_connection_max", "Pooled connections at most", self.pool_max.clone());
        registry.register(
            "db_client_connection_pending_requests",
            "Callers that wait for one",
            self.pool_pending.clone(),
        );
    }

    /// Brings up to date what is only computed when somebody looks.
    pub fn refresh(&self, log_dropped: u64) {
        self.error_percent.set(self.error_rate.percent());
        self.log_dropped.inc_by(log_dropped.saturating_sub(self.log_dropped.get()));
        self.process.refresh();
    }
}

impl ProcessMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register_with_unit("process_cpu", "Processor time used", Unit::Seconds, self.cpu_seconds.clone());
        registry.register_with_unit(
            "process_resident_memory",
            "Resident memory",
            Unit::Bytes,
            self.resident_bytes.clone(),
        );
        registry.register("process_open_fds", "Open file descriptors", self.open_fds.clone());
        registry.register("process_max_fds", "File descriptors at most", self.max_fds.clone());
        registry.register("process_threads", "Threads", self.threads.clone());
        registry.register_with_unit(
            "process_start_time",
            "Start, since the epoch",
            Unit::Seconds,
            self.start_time.clone(),
        );
        registry.register("tokio_workers", "Threads of the background runtime", self.runtime_workers.clone());
        registry.register("tokio_live_tasks", "Tasks of the background runtime", self.runtime_tasks.clone());
        registry.register("tokio_global_queue_depth", "Tasks that wait for a thread", self.runtime_queue.clone());
    }

    fn refresh(&self) {
        if let Some(process) = super::process::read() {
            self.cpu_seconds.inner().store(process.cpu.as_secs_f64().to_bits(), std::sync::atomic::Ordering::Relaxed);
            self.resident_bytes.set(process.resident_bytes);
            self.open_fds.set(process.open_fds);
            self.max_fds.set(process.max_fds);
            self.threads.set(process.threads);
            self.start_time.set(process.start_time.as_secs_f64());
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let runtime = runtime.metrics();
            self.runtime_workers.set(count(runtime.num_workers()));
            self.runtime_tasks.set(count(runtime.num_alive_tasks()));
            self.runtime_queue.set(count(runtime.global_queue_depth()));
        }
    }
}

/// A count as a gauge wants it.
pub fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Observes a duration; with an exemplar when the request is traced.
pub fn observe(histogram: &Durations, took: Duration, trace_id: Option<String>) {
    let exemplar = trace_id.map(|trace_id| Exemplar { trace_id });
    let at = exemplar.is_some().then(SystemTime::now);
    histogram.observe(took.as_secs_f64(), exemplar, at);
}
