//! What a service tells about itself: log lines, metrics, spans. Cheap, bounded, and declared.
//!
//! This crate knows neither HTTP nor what is told; that stands in the service's [`catalog::Catalog`].

pub mod catalog;
pub mod context;
pub mod error_rate;
mod events;
mod export;
pub mod levels;
pub mod log;
pub mod process;
pub mod settings;
pub mod traces;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use opentelemetry::trace::{SpanContext, TraceId, TracerProvider};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;

use crate::catalog::Catalog;
use crate::export::Outcomes;
use crate::levels::Levels;
use crate::log::LogWriter;
use crate::settings::{Sampler, TelemetryConfig};
use crate::traces::Late;

/// Handles to logs and traces; cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    /// Where lines go.
    pub log: LogWriter,
    /// Which events become lines.
    pub levels: Arc<Levels>,
    /// What became of finished spans.
    pub spans: Outcomes,
    sampler: Sampler,
    traces: Option<(SdkTracerProvider, SdkTracer)>,
}

impl Telemetry {
    /// Starts everything and makes it the process's own. Needs a tokio runtime around it.
    pub fn start(config: &TelemetryConfig, catalog: &'static Catalog) -> anyhow::Result<Self> {
        let log = LogWriter::start(config.log_format, std::io::stdout()).context("no thread for the log")?;
        events::log_panics(log.clone());
        let spans = Outcomes::default();
        let provider = config.export.as_ref().map(|export| traces::provider(config, export, &spans)).transpose()?;
        let traces = provider.map(|provider| (provider.clone(), provider.tracer(env!("CARGO_CRATE_NAME"))));
        let layer = traces.as_ref().map(|(_, tracer)| {
            tracing_opentelemetry::layer()
                .with_tracer(tracer.clone())
                .with_context_activation(false)
                .with_tracked_inactivity(false)
                .with_threads(false)
                .with_location(false)
                .with_target(false)
                .with_level(false)
                .with_filter(traces::TraceFilter { catalog, sampler: config.sampler })
        });
        let levels = Arc::new(Levels::new(config.log_level.clone(), Handle::current()));
        let filter = events::EventFilter { levels: Arc::clone(&levels), catalog };
        let events = events::EventLayer(log.clone()).with_filter(filter);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer).with(events))
            .context("telemetry runs already in this process")?;
        Ok(Self { log, levels, spans, sampler: config.sampler, traces })
    }

    /// Whether spans of this request are recorded.
    pub fn samples(&self, parent: Option<&SpanContext>, trace_id: TraceId) -> bool {
        self.traces.is_some() && self.sampler.draw(parent, trace_id)
    }

    /// Records what wasn't sampled and is worth a look nevertheless, unless no traces at all are wanted.
    pub fn record_late<'a>(&self, late: impl FnOnce() -> Late<'a>) {
        if let Some((_, tracer)) = self.traces.as_ref().filter(|_| self.sampler.ratio > 0.0) {
            late().record(tracer);
        }
    }

    /// Sends what is left. Comes last, and takes no longer than it may, however dead the collector is.
    pub async fn shutdown(self, within: Duration) {
        let until = Instant::now() + within;
        if let Some((provider, _)) = self.traces {
            let flush = tokio::task::spawn_blocking(move || traces::shutdown(&provider, within));
            if tokio::time::timeout(within, flush).await.is_err() {
                tracing::warn!(name: "telemetry.flush_late", "the collector did not take the last spans in time");
            }
        }
        self.log.flush(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(50)));
    }
}
