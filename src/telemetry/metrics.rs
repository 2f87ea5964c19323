//! Metrics: each is a field, registered where it is made, with the help text that Prometheus shows.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};
use tokio::runtime::Handle;

use super::error_rate::ErrorRate;
use super::log::LogWriter;
use super::process::ProcessCollector;

/// OpenTelemetry's advice for `http.server.request.duration`, in seconds; 0.25 is the latency objective.
const HTTP_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// OpenTelemetry's advice for `db.client.operation.duration`, in seconds.
const DATABASE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

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
    pub panics: Counter,
    /// The operation is the query's name in the code; the error type is empty or the kind of the failure.
    pub query_duration: Family<Labels<3>, Histogram, fn() -> Histogram>,
    pub pool_wait: Histogram,
    pub pool_timeouts: Counter,
    /// The state is `idle` or `used`.
    pub pool_connections: Family<Labels<1>, Gauge>,
    pub pool_max: Gauge,
    pub pool_pending: Gauge,
}

impl Metrics {
    pub fn new(r: &mut Registry, log: &LogWriter) -> Self {
        let build: Family<Labels<2>, Gauge> = plain(r, "build_info", "The running program", Family::default());
        build.get_or_create(&[("version", crate::VERSION), ("revision", crate::REVISION)]).set(1);
        plain(r, "log_lines_dropped", "Lines that stdout did not take in time", log.dropped.clone());
        let error_rate = Arc::new(ErrorRate::default());
        r.register_collector(Box::new(Arc::clone(&error_rate)));
        r.register_collector(Box::new(ProcessCollector(Handle::current())));
        let durations: Family<_, _, fn() -> Durations> =
            Family::new_with_constructor(|| Durations::new(HTTP_BUCKETS.into_iter()));
        let queries: fn() -> Histogram = || Histogram::new(DATABASE_BUCKETS);
        Self {
            requests: plain(r, "http_requests", "Answered requests", Family::default()),
            request_duration: seconds(r, "http_request_duration", "From a request's head to its answer's", durations),
            errors: plain(r, "http_errors", "Answers with status 400 and above", Family::default()),
            error_rate,
            in_flight: plain(r, "http_requests_in_flight", "Requests being worked on", Gauge::default()),
            panics: plain(r, "panics", "Panics of handlers, answered with 500", Counter::default()),
            query_duration: seconds(
                r,
                "db_client_operation_duration",
                "A statement or transaction",
                Family::new_with_constructor(queries),
            ),
            pool_wait: seconds(r, "db_client_connection_wait_time", "Wait for a connection", queries()),
            pool_timeouts: plain(r, "db_client_connection_timeouts", "Waits that took too long", Counter::default()),
            pool_connections: plain(r, "db_client_connection_count", "Connections by state", Family::default()),
            pool_max: plain(r, "db_client_connection_max", "Connections at most", Gauge::default()),
            pool_pending: plain(r, "db_client_connection_pending_requests", "Callers that wait", Gauge::default()),
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
    let exemplar = trace_id.map(|id| [("trace_id", id)]);
    let at = exemplar.is_some().then(SystemTime::now);
    histogram.observe(took.as_secs_f64(), exemplar, at);
}
