//! Spans: made with `tracing`, recorded by OpenTelemetry, exported in batches by a thread of the SDK.

use std::cell::Cell;
use std::time::Duration;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{HeaderMap, HeaderName};
use anyhow::Context as _;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use opentelemetry::{Context as OtelContext, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, Sampler, SdkTracerProvider};
use rand::RngExt;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap};
use tracing::subscriber::Interest;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::context::random_id;
use super::observe::known_method;
use crate::config::{ExportConfig, TelemetryConfig};

/// Target of the spans that begin a trace; all others need a recorded parent.
const ROOT: &str = "trace_root";

thread_local! {
    static NEXT_TRACE_ID: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// The SDK's provider for this collector. gRPC needs a tokio runtime around the call.
pub fn provider(config: &TelemetryConfig, export: &ExportConfig) -> anyhow::Result<SdkTracerProvider> {
    let exporter = exporter(export).context("the OTLP exporter can't be built")?;
    let attributes = config.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", crate::VERSION))
        .with_attribute(KeyValue::new("service.instance.id", random_id()))
        .with_attribute(KeyValue::new("deployment.environment.name", "development"))
        .with_attributes(attributes)
        .with_service_name(config.service_name.clone())
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        // The sample is drawn before a span is made; a second draw here would square the share.
        .with_sampler(Sampler::AlwaysOn)
        .with_id_generator(Ids)
        .with_resource(resource)
        .build())
}

fn exporter(export: &ExportConfig) -> anyhow::Result<SpanExporter> {
    let exporter = if export.grpc {
        let mut metadata = MetadataMap::new();
        for (key, value) in &export.headers {
            metadata.insert(key.to_lowercase().parse::<MetadataKey<Ascii>>()?, value.parse()?);
        }
        let builder = SpanExporter::builder().with_tonic().with_endpoint(&export.endpoint).with_timeout(export.timeout);
        builder.with_metadata(metadata).build()?
    } else {
        SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&export.endpoint)
            .with_timeout(export.timeout)
            .with_headers(export.headers.iter().cloned().collect())
            .build()?
    };
    Ok(exporter)
}

/// Gives a root span the trace id that was drawn for its request before the span existed.
#[derive(Debug)]
struct Ids;

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT_TRACE_ID.take().unwrap_or_else(|| RandomIdGenerator::default().new_trace_id())
    }
    fn new_span_id(&self) -> SpanId {
        SpanId::from(rand::rng().random::<u64>())
    }
}

/// The caller's span, when there is a well-formed `traceparent` (W3C Trace Context, section 3.2).
pub fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    headers.get("traceparent")?;
    let context = TraceContextPropagator::new().extract_with_context(&OtelContext::new(), &Headers(headers));
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Makes the root span of a sampled request. Returns it with its span id.
pub fn root(request: &ServiceRequest, parent: Option<SpanContext>, trace_id: TraceId, client: &str) -> (Span, SpanId) {
    let method = known_method(request.method());
    let span = tracing::info_span!(
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
    );
    if let Some(parent) = parent {
        // Fails only once the span has begun, and it begins in the next line but one.
        let _ = span.set_parent(OtelContext::new().with_remote_span_context(parent));
    }
    NEXT_TRACE_ID.set(Some(trace_id));
    let span_id = span.context().span().span_context().span_id();
    NEXT_TRACE_ID.set(None);
    (span, span_id)
}

/// Gives a span that has begun another name; recording `otel.name` has no effect any more by then.
pub fn rename(span: &Span, name: String) {
    span.context().span().update_name(name);
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Lets through what belongs to a recorded trace and nothing else.
pub struct TraceFilter;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for TraceFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        metadata.target() == ROOT || context.lookup_current().is_some()
    }
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if *metadata.level() <= tracing::Level::DEBUG { Interest::sometimes() } else { Interest::never() }
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }
}

/// Exports what is left, at most `within`; blocking, so not for a worker thread.
pub fn shutdown(provider: &SdkTracerProvider, within: Duration) {
    if let Err(error) = provider.shutdown_with_timeout(within) {
        tracing::warn!(%error, "the last spans may be lost");
    }
}
