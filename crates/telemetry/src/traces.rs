//! Spans: made with `tracing`, recorded by OpenTelemetry, exported in batches by a thread of the SDK.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceId, Tracer};
use opentelemetry::{Context as OtelContext, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider};
use rand::RngExt;
use tracing::subscriber::Interest;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use crate::catalog::Catalog;
use crate::context::{BAGGAGE, RequestContext, random_id};
use crate::export::{self, Outcomes};
use crate::settings::{self, ExportConfig, TelemetryConfig};

/// Targets of spans that begin a trace end like this; whether they are sampled was decided by who makes them.
const ROOT: &str = "::root";
/// Targets of spans that begin a trace of work that another process's recorded span caused end like this; that one's
/// decision holds as a caller's would. All others need a recorded parent.
const LINKED: &str = "::linked";

thread_local! {
    static NEXT_TRACE_ID: Cell<Option<TraceId>> = const { Cell::new(None) };
    static NEXT_SPAN_ID: Cell<Option<SpanId>> = const { Cell::new(None) };
}

/// The SDK's provider for this collector. gRPC needs a tokio runtime around the call.
pub(crate) fn provider(
    config: &TelemetryConfig,
    export: &ExportConfig,
    outcomes: &Outcomes,
) -> anyhow::Result<SdkTracerProvider> {
    let attributes = config.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", config.version))
        .with_attribute(KeyValue::new("service.instance.id", random_id()))
        .with_attribute(KeyValue::new("deployment.environment.name", "development"))
        .with_attributes(attributes)
        .with_service_name(config.service_name.clone())
        .build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(export::processor(export, outcomes)?)
        // The sample is drawn before a span is made; a second draw here would square the share.
        .with_sampler(Sampler::AlwaysOn)
        .with_id_generator(Ids)
        // What one span may hold; the declared ones hold far less.
        .with_max_attributes_per_span(64)
        .with_max_events_per_span(64)
        .with_max_links_per_span(16)
        .with_resource(resource)
        .build())
}

/// Gives a root span the ids that were drawn for its request before the span existed.
#[derive(Debug)]
struct Ids;

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT_TRACE_ID.take().unwrap_or_else(|| RandomIdGenerator::default().new_trace_id())
    }
    fn new_span_id(&self) -> SpanId {
        NEXT_SPAN_ID.take().unwrap_or_else(random_span_id)
    }
}

/// The id of a span that may never be recorded.
pub fn random_span_id() -> SpanId {
    SpanId::from(rand::rng().random::<u64>().max(1))
}

/// The caller's span, when there is a well-formed `traceparent` (W3C Trace Context, section 3.2).
pub fn parent<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<SpanContext> {
    let carrier = Carrier { traceparent: header("traceparent")?, tracestate: header("tracestate") };
    let context = TraceContextPropagator::new().extract_with_context(&OtelContext::new(), &carrier);
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// The headers of W3C Trace Context.
struct Carrier<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }
    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Begins the root span of a sampled request, under its caller's; returns its id.
pub fn begin(span: &Span, parent: Option<&SpanContext>, trace_id: TraceId) -> SpanId {
    if let Some(parent) = parent {
        // Fails only once the span has begun, and it begins below.
        let _ = span.set_parent(OtelContext::new().with_remote_span_context(parent.clone()));
    }
    NEXT_TRACE_ID.set(Some(trace_id));
    let span_id = span.context().span().span_context().span_id();
    NEXT_TRACE_ID.set(None);
    span_id
}

/// Gives a span that has begun another name; recording `otel.name` has no effect any more by then.
pub fn rename(span: &Span, name: String) {
    span.context().span().update_name(name);
}

/// The recorded request span that this runs in, as text for other replicas: `traceparent`, then `tracestate` behind a
/// space. Empty without one. Baggage stays out of what others store.
pub fn name() -> String {
    let Some(context) = RequestContext::current().filter(|context| context.sampled) else { return String::new() };
    let trace = context.outgoing().filter(|(header, _)| *header != BAGGAGE).map(|(_, value)| value);
    trace.collect::<Vec<_>>().join(" ")
}

/// Links a span to one that another replica named with [`name`].
pub fn link(span: &Span, name: &str) {
    let (traceparent, tracestate) = name.split_once(' ').map_or((name, None), |(trace, state)| (trace, Some(state)));
    let header = |header: &str| if header == "traceparent" { Some(traceparent) } else { tracestate };
    if let Some(cause) = parent(header) {
        span.add_link(cause);
    }
}

/// The `traceresponse` header of an answer (W3C Trace Context, level 2, draft).
pub fn traceresponse(context: &RequestContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id, context.span_id, u8::from(context.sampled))
}

/// A request that wasn't sampled and turned out to be worth a look.
#[derive(Debug)]
pub struct Late<'a> {
    /// Its ids.
    pub context: &'a RequestContext,
    /// How its span is named.
    pub name: String,
    /// How long ago it began.
    pub took: Duration,
    /// Whether it is an error.
    pub failed: bool,
    /// What is known of it.
    pub attributes: Vec<KeyValue>,
}

impl Late<'_> {
    /// Records its root span alone; the others were never made.
    pub(crate) fn record(self, tracer: &SdkTracer) {
        let now = SystemTime::now();
        let parent = self.context.parent.clone();
        let parent = parent.map_or_else(OtelContext::new, |parent| OtelContext::new().with_remote_span_context(parent));
        NEXT_TRACE_ID.set(Some(self.context.trace_id));
        NEXT_SPAN_ID.set(Some(self.context.span_id));
        let mut span = tracer
            .span_builder(self.name)
            .with_kind(SpanKind::Server)
            .with_start_time(now.checked_sub(self.took).unwrap_or(now))
            .with_attributes(self.attributes)
            .start_with_context(tracer, &parent);
        NEXT_TRACE_ID.set(None);
        NEXT_SPAN_ID.set(None);
        if self.failed {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(now);
    }
}

/// Lets through what is declared and belongs to a recorded trace, and nothing else.
pub(crate) struct TraceFilter {
    pub(crate) catalog: &'static Catalog,
    pub(crate) sampler: settings::Sampler,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for TraceFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        let target = metadata.target();
        let drawn =
            || self.sampler.parent_based || self.sampler.draw(None, TraceId::from(rand::rng().random::<u128>()));
        target.ends_with(ROOT) || context.lookup_current().is_some() || (target.ends_with(LINKED) && drawn())
    }
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let wanted = *metadata.level() <= tracing::Level::DEBUG && self.catalog.admits(metadata);
        if wanted { Interest::sometimes() } else { Interest::never() }
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }
}

/// Exports what is left, at most `within`; blocking, so not for a worker thread.
pub(crate) fn shutdown(provider: &SdkTracerProvider, within: Duration) {
    if let Err(error) = provider.shutdown_with_timeout(within) {
        tracing::warn!(name: "telemetry.flush_failed", %error, "the last spans may be lost");
    }
}
