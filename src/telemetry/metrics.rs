//! Metrics: each is a field, registered where it is made, with the help text that Prometheus shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};
use tokio::runtime::Handle;

use super::error_rate::ErrorRate;

/// OpenTelemetry's advice for `http.server.request.duration`, in seconds; 0.25 is the latency objective.
const HTTP_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// OpenTelemetry's advice for `db.client.operation.duration`, in seconds.
const DATABASE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// A method is a known one or `_OTHER`; a route is a template or `unmatched`; 499 means that the client went away.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub http_request_method: &'static str,
    pub http_route: &'static str,
    pub http_response_status_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    pub http_request_method: &'static str,
    pub http_route: &'static str,
}

/// The class is `4xx` or `5xx`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    pub http_route: &'static str,
    pub class: &'static str,
}

/// The operation is the query's name in the code; the error type is empty or the kind of the failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DatabaseLabels {
    pub db_system_name: &'static str,
    pub db_operation_name: &'static str,
    pub error_type: &'static str,
}

/// The state is `idle` or `used`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    pub state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    revision: &'static str,
}

/// The trace that shows an observation of this size.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Exemplar {
    pub trace_id: String,
}

pub type Durations = HistogramWithExemplars<Exemplar>;

/// The service's own metrics; clones count into the same numbers.
#[derive(Clone)]
pub struct Metrics {
    pub requests: Family<RequestLabels, Counter>,
    pub request_duration: Family<DurationLabels, Durations, fn() -> Durations>,
    pub errors: Family<ErrorLabels, Counter>,
    pub error_rate: Arc<ErrorRate>,
    pub in_flight: Gauge,
    pub panics: Counter,
    pub query_duration: Family<DatabaseLabels, Histogram, fn() -> Histogram>,
    pub pool_wait: Histogram,
    pub pool_timeouts: Counter,
    pub pool_connections: Family<PoolLabels, Gauge>,
    pub pool_max: Gauge,
    pub pool_pending: Gauge,
    error_percent: Gauge<f64, AtomicU64>,
    log_dropped: Counter,
    process: ProcessMetrics,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let r = registry;
        let build: Family<BuildLabels, Gauge> = plain(r, "build_info", "The running program", Family::default());
        build.get_or_create(&BuildLabels { version: crate::VERSION, revision: crate::REVISION }).set(1);
        let durations: Family<_, _, fn() -> Durations> =
            Family::new_with_constructor(|| Durations::new(HTTP_BUCKETS.into_iter()));
        let queries: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(DATABASE_BUCKETS));
        Self {
            requests: plain(r, "http_requests", "Answered requests", Family::default()),
            request_duration: seconds(r, "http_request_duration", "From a request's head to its answer's", durations),
            errors: plain(r, "http_errors", "Answers with status 400 and above", Family::default()),
            error_rate: Arc::default(),
            error_percent: plain(r, "http_error_rate", "Percent of errors over the last minute", Gauge::default()),
            in_flight: plain(r, "http_requests_in_flight", "Requests being worked on", Gauge::default()),
            panics: plain(r, "panics", "Panics of handlers, answered with 500", Counter::default()),
            log_dropped: plain(r, "log_lines_dropped", "Lines that stdout did not take in time", Counter::default()),
            query_duration: seconds(r, "db_client_operation_duration", "A statement or transaction", queries),
            pool_wait: seconds(
                r,
                "db_client_connection_wait_time",
                "Wait for a connection",
                Histogram::new(DATABASE_BUCKETS),
            ),
            pool_timeouts: plain(r, "db_client_connection_timeouts", "Waits that took too long", Counter::default()),
            pool_connections: plain(r, "db_client_connection_count", "Connections by state", Family::default()),
            pool_max: plain(r, "db_client_connection_max", "Connections at most", Gauge::default()),
            pool_pending: plain(r, "db_client_connection_pending_requests", "Callers that wait", Gauge::default()),
            process: ProcessMetrics::new(r),
        }
    }

    /// Brings up to date what is only computed when somebody looks.
    pub fn refresh(&self, log_dropped: u64) {
        self.error_percent.set(self.error_rate.percent());
        self.log_dropped.inner().store(log_dropped, Ordering::Relaxed);
        self.process.refresh();
    }
}

/// What the operating system and the runtime say.
#[derive(Clone)]
struct ProcessMetrics {
    /// The one that everything but HTTP runs on; a scrape is answered on a worker's own.
    runtime: Option<Handle>,
    cpu_seconds: Counter<f64, AtomicU64>,
    resident_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    threads: Gauge,
    start_time: Gauge<f64, AtomicU64>,
    runtime_workers: Gauge,
    runtime_tasks: Gauge,
    runtime_queue: Gauge,
}

impl ProcessMetrics {
    fn new(r: &mut Registry) -> Self {
        let resident = Gauge::default();
        r.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, resident.clone());
        Self {
            runtime: Handle::try_current().ok(),
            cpu_seconds: seconds(r, "process_cpu", "Processor time used", Counter::default()),
            resident_bytes: resident,
            open_fds: plain(r, "process_open_fds", "Open file descriptors", Gauge::default()),
            max_fds: plain(r, "process_max_fds", "File descriptors at most", Gauge::default()),
            threads: plain(r, "process_threads", "Threads", Gauge::default()),
            start_time: seconds(r, "process_start_time", "Start, since the epoch", Gauge::default()),
            runtime_workers: plain(r, "tokio_workers", "Threads of the background runtime", Gauge::default()),
            runtime_tasks: plain(r, "tokio_live_tasks", "Tasks of the background runtime", Gauge::default()),
            runtime_queue: plain(r, "tokio_global_queue_depth", "Tasks that wait for a thread", Gauge::default()),
        }
    }

    fn refresh(&self) {
        if let Some(process) = super::process::read() {
            self.cpu_seconds.inner().store(process.cpu.as_secs_f64().to_bits(), Ordering::Relaxed);
            self.resident_bytes.set(process.resident_bytes);
            self.open_fds.set(process.open_fds);
            self.max_fds.set(process.max_fds);
            self.threads.set(process.threads);
            self.start_time.set(process.start_time.as_secs_f64());
        }
        if let Some(runtime) = self.runtime.as_ref().map(Handle::metrics) {
            self.runtime_workers.set(count(runtime.num_workers()));
            self.runtime_tasks.set(count(runtime.num_alive_tasks()));
            self.runtime_queue.set(count(runtime.global_queue_depth()));
        }
    }
}

fn plain<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
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
