//! The way of finished spans to the collector: bounded, counted, and never in anybody's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::Context;
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap};

use crate::settings::ExportConfig;

/// Finished spans by what became of them: `exported`, `failed` or `dropped`.
pub type Outcomes = Family<[(&'static str, &'static str); 1], Counter>;

/// Hands spans to the SDK's own queue as long as that has room.
#[derive(Debug)]
pub(crate) struct Bounded {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    most: usize,
    dropped: Counter,
}

#[derive(Debug)]
struct Counted {
    exporter: Otlp,
    waiting: Arc<AtomicUsize>,
    exported: Counter,
    failed: Counter,
}

/// The way to this collector. gRPC needs a tokio runtime around the call.
pub(crate) fn processor(config: &ExportConfig, outcomes: &Outcomes) -> anyhow::Result<Bounded> {
    let counter = |outcome| outcomes.get_or_create_owned(&[("outcome", outcome)]);
    let exporter = exporter(config).context("the OTLP exporter can't be built")?;
    let waiting = Arc::new(AtomicUsize::new(0));
    let counted =
        Counted { exporter, waiting: Arc::clone(&waiting), exported: counter("exported"), failed: counter("failed") };
    // Room for twice as many: what is being exported has left the SDK's queue but is still counted here.
    // How many leave at once the SDK reads from the environment itself; never more than OTEL_BSP_MAX_QUEUE_SIZE.
    let queue = BatchConfigBuilder::default().with_max_queue_size(config.queue.saturating_mul(2)).build();
    let batches = BatchSpanProcessor::builder(counted).with_batch_config(queue).build();
    Ok(Bounded { batches, waiting, most: config.queue, dropped: counter("dropped") })
}

fn exporter(export: &ExportConfig) -> anyhow::Result<Otlp> {
    let exporter = if export.grpc {
        let mut metadata = MetadataMap::new();
        for (key, value) in &export.headers {
            metadata.insert(key.to_lowercase().parse::<MetadataKey<Ascii>>()?, value.parse()?);
        }
        let builder = Otlp::builder().with_tonic().with_endpoint(&export.endpoint).with_timeout(export.timeout);
        builder.with_metadata(metadata).build()?
    } else {
        Otlp::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&export.endpoint)
            .with_timeout(export.timeout)
            .with_headers(export.headers.iter().cloned().collect())
            .build()?
    };
    Ok(exporter)
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.batches.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Relaxed) < self.most {
            self.batches.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Relaxed);
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.waiting.fetch_sub(spans, Relaxed);
        let outcome = if result.is_ok() { &self.exported } else { &self.failed };
        outcome.inc_by(spans as u64);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
