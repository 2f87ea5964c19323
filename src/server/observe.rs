//! The one middleware that every request passes: ids, span, metrics, log line, headers, and the body of errors.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse};
use futures_util::FutureExt;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, TraceId};
use prometheus_client::metrics::counter::Counter;
use rand::RngExt;
use telemetry::Telemetry;
use telemetry::context::{RequestContext, baggage, request_id};
use telemetry::traces::{self, Late};
use tracing::{Instrument, Level, Span};

use super::client::Clients;
use super::problem::{self, Problem};
use crate::app::App;
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::{self, Durations, Metrics};

/// Where spans that begin a trace are told from the others.
const ROOT: &str = concat!(env!("CARGO_PKG_NAME"), "::root");

/// The root span of a sampled request.
fn root(request: &ServiceRequest, client: &str) -> Span {
    let method = known_method(request.method());
    tracing::info_span!(
        target: ROOT,
        "request",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
        http.request.method = method,
        http.route = tracing::field::Empty,
        http.response.status_code = tracing::field::Empty,
        url.path = request.path(),
        url.scheme = "http",
        client.address = client,
        user_agent.original = request.headers().get("user-agent").and_then(|value| value.to_str().ok()),
    )
}

/// Route label of requests that no route matched.
pub const UNMATCHED: &str = "unmatched";
/// What nginx made customary for a client that went away before its answer.
const CLIENT_CLOSED: u16 = 499;
/// Requests that take longer have a span in any case.
const SLOW: Duration = Duration::from_secs(1);
const X_RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What one worker needs to observe its requests.
pub struct Observer {
    telemetry: Telemetry,
    metrics: Metrics,
    lifecycle: Lifecycle,
    clients: Clients,
    handles: RefCell<HashMap<Series, Handles>>,
}

/// Method, route and status.
type Series = (&'static str, &'static str, u16);

/// Resolved once per series and worker; looking them up by labels costs as much as the rest of the metrics.
#[derive(Clone)]
struct Handles {
    requests: Counter,
    duration: Durations,
    errors: Option<Counter>,
}

impl Observer {
    /// Also watches the lag of the worker that it is made on.
    pub fn new(app: &App, clients: Clients) -> Self {
        actix_web::rt::spawn(app.metrics.clone().watch_lag("worker"));
        let (telemetry, metrics, lifecycle) = (app.telemetry.clone(), app.metrics.clone(), app.lifecycle.clone());
        Self { telemetry, metrics, lifecycle, clients, handles: RefCell::default() }
    }

    fn handles(&self, series: Series) -> Handles {
        let (method, route, status) = series;
        let metrics = &self.metrics;
        let (method_label, route_label) = (("http_request_method", method), ("http_route", route));
        let class = ("class", if status < 500 { "4xx" } else { "5xx" });
        let resolve = || Handles {
            requests: metrics.requests.get_or_create_owned(&[
                ("http_request_method", method.into()),
                ("http_route", route.into()),
                ("http_response_status_code", status.to_string().into()),
            ]),
            duration: metrics.request_duration.get_or_create_owned(&[method_label, route_label]),
            errors: (status >= 400).then(|| metrics.errors.get_or_create_owned(&[route_label, class])),
        };
        self.handles.borrow_mut().entry(series).or_insert_with(resolve).clone()
    }
}

pub async fn observe<B: MessageBody + 'static>(
    observer: Rc<Observer>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut flight = Flight::begin(&observer, &request);
    let (context, span) = (Arc::clone(&flight.context), flight.span.clone());
    let handled = AssertUnwindSafe(context.scope(next.call(request).instrument(span)));
    match handled.catch_unwind().await {
        Ok(Ok(answer)) => Ok(flight.finish(answer.map_into_boxed_body())),
        Ok(Err(error)) => Err(flight.finish_error(&error)),
        Err(_) => {
            let problem =
                Problem::new(problem::INTERNAL, "The request could not be answered.").because("a panic, logged apart");
            Err(flight.finish_error(&problem.into()))
        }
    }
}

/// One request under way. Dropped before it was finished, it counts as one whose client went away, unless it is the process
/// that goes.
struct Flight<'a> {
    observer: &'a Observer,
    context: Arc<RequestContext>,
    span: Span,
    started: Instant,
    method: &'static str,
    path: String,
    client: String,
    probe: bool,
    user_agent: Option<String>,
    finished: bool,
}

impl<'a> Flight<'a> {
    fn begin(observer: &'a Observer, request: &ServiceRequest) -> Self {
        let started = Instant::now();
        let headers = request.headers();
        let probe = is_probe(request.path());
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let parent = traces::parent(header);
        let drawn = || TraceId::from(rand::rng().random::<u128>().max(1));
        let trace_id = parent.as_ref().map_or_else(drawn, SpanContext::trace_id);
        let sampled = !probe && observer.telemetry.samples(parent.as_ref(), trace_id);
        let client = observer.clients.address(request);
        let (span, span_id) = if sampled {
            let span = root(request, &client);
            let span_id = traces::begin(&span, parent.as_ref(), trace_id);
            (span, span_id)
        } else {
            (Span::none(), traces::random_span_id())
        };
        if !probe {
            observer.metrics.in_flight.inc();
        }
        Self {
            observer,
            context: Arc::new(RequestContext {
                trace_id,
                span_id,
                request_id: request_id(header("x-request-id")),
                sampled,
                parent,
                baggage: baggage(header("baggage")),
                route: OnceLock::new(),
                cache: OnceLock::new(),
            }),
            span,
            started,
            method: known_method(request.method()),
            path: request.path().to_owned(),
            client,
            probe,
            user_agent: header("user-agent").map(str::to_owned),
            finished: false,
        }
    }

    fn finish(&mut self, mut answer: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        let mut internal = None;
        if answer.status().as_u16() >= 400 && lacks_body(answer.response()) {
            let (rendered, why) = self.render(answer.response().error(), answer.status());
            (answer, internal) = (answer.into_response(rendered), why);
        }
        self.seal(answer.response_mut(), internal.as_deref());
        answer
    }

    /// The framework keeps no request beside an error, so the answer travels inside of it.
    fn finish_error(&mut self, error: &Error) -> Error {
        let (mut answer, internal) = self.render(Some(error), error.as_response_error().status_code());
        self.seal(&mut answer, internal.as_deref());
        InternalError::from_response("already rendered", answer).into()
    }

    /// The whole answer, and what only the log may know.
    fn render(&self, error: Option<&Error>, status: StatusCode) -> (HttpResponse, Option<String>) {
        match error.and_then(Error::as_error::<Problem>) {
            Some(problem) => {
                (problem.render(&self.context, &self.path), problem.internal.as_deref().map(str::to_owned))
            }
            None => (Problem::of_status(status).render(&self.context, &self.path), error.map(ToString::to_string)),
        }
    }

    /// What every answer gets.
    fn seal(&mut self, answer: &mut HttpResponse<BoxBody>, internal: Option<&str>) {
        if self.observer.lifecycle.phase() >= Phase::Draining {
            answer.head_mut().set_connection_type(ConnectionType::Close);
        }
        let time = format!("{:.2}ms", self.started.elapsed().as_secs_f64() * 1000.0);
        let trace = traces::traceresponse(&self.context);
        let request_id = &self.context.request_id;
        for (name, text) in [(X_RESPONSE_TIME, &time), (X_REQUEST_ID, request_id), (TRACERESPONSE, &trace)] {
            if let Ok(value) = HeaderValue::from_str(text) {
                answer.headers_mut().insert(name, value);
            }
        }
        self.record(answer.status().as_u16(), internal);
    }

    /// Span, metrics and the log line.
    fn record(&mut self, status: u16, internal: Option<&str>) {
        self.finished = true;
        let took = self.started.elapsed();
        let route = self.context.route.get().copied().unwrap_or(UNMATCHED);
        let handles = self.observer.handles((self.method, route, status));
        handles.requests.inc();
        metrics::observe(&handles.duration, took, self.context.sampled.then(|| self.context.trace_id.to_string()));
        if let Some(errors) = handles.errors {
            errors.inc();
        }
        if self.context.sampled {
            self.complete_span(route, status);
        } else if !self.probe && (status >= 500 || took >= SLOW) {
            self.observer.telemetry.record_late(|| self.late(route, status, took));
        }
        self.log(route, status, took.as_secs_f64() * 1000.0, internal);
        if !self.probe {
            self.observer.metrics.error_rate.record(status >= 400);
            // Last, since the stop waits for it.
            self.observer.metrics.in_flight.dec();
        }
    }

    /// Errors and slow requests have a span in any case, made afterwards, so that the others pay nothing for it.
    fn late(&self, route: &str, status: u16, took: Duration) -> Late<'_> {
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("url.path", self.path.clone()),
            KeyValue::new("client.address", self.client.clone()),
        ];
        if route != UNMATCHED {
            attributes.push(KeyValue::new("http.route", route.to_owned()));
        }
        let (name, failed) = (format!("{} {route}", self.method), status >= 500);
        if failed {
            attributes.push(KeyValue::new("error.type", status.to_string()));
        }
        Late { context: &self.context, name, took, failed, attributes }
    }

    fn complete_span(&self, route: &str, status: u16) {
        if route == UNMATCHED {
            traces::rename(&self.span, self.method.to_owned());
        } else {
            traces::rename(&self.span, format!("{} {route}", self.method));
            self.span.record("http.route", route);
        }
        self.span.record("http.response.status_code", i64::from(status));
        if status >= 500 || status == CLIENT_CLOSED {
            self.span.record("error.type", status.to_string());
        }
        if status >= 500 {
            self.span.record("otel.status_code", "ERROR");
        }
    }

    fn log(&self, route: &str, status: u16, millis: f64, internal: Option<&str>) {
        // A probe's 503 is an answer, not a failure; what it tells has a line of its own.
        let level = if status >= 500 && !self.probe { Level::ERROR } else { Level::INFO };
        let well = self.probe && status < 400;
        if well || !self.observer.telemetry.levels.allow("access", &level) {
            return;
        }
        let log = &self.observer.telemetry.log;
        let mut line = log.line(level, "access");
        line.message("request");
        line.context(&self.context);
        line.text("http.request.method", self.method);
        line.text("http.route", route);
        line.text("url.path", &self.path);
        line.number("http.response.status_code", status);
        line.number("duration_ms", format_args!("{millis:.3}"));
        line.text("client.address", &self.client);
        let cache = self.context.cache.get().copied();
        for (key, value) in [("user_agent.original", self.user_agent.as_deref()), ("cache", cache), ("error", internal)]
        {
            value.into_iter().for_each(|value| line.text(key, value));
        }
        log.write(line);
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let stopping = self.observer.lifecycle.phase() >= Phase::Stopping;
            let cut = (503, "cut off: it did not end before SHUTDOWN_TIMEOUT");
            let (status, why) = if stopping { cut } else { (CLIENT_CLOSED, "the client went away") };
            self.record(status, Some(why));
        }
    }
}

/// Probes come every few seconds from everywhere: they are counted, but neither traced nor, when all is well, logged.
fn is_probe(path: &str) -> bool {
    path == "/health" || path.starts_with("/health/") || path == "/metrics"
}

/// Errors come without a body or with the framework's own; what a handler wrote, such as a 503 of `/health`, is kept.
fn lacks_body(answer: &HttpResponse<BoxBody>) -> bool {
    answer.error().is_some() || matches!(answer.body().size(), BodySize::None | BodySize::Sized(0))
}

/// Anybody can invent methods; only known ones become labels.
pub fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}
