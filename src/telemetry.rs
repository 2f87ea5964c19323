//! What the service tells about itself: log lines, metrics, spans.

pub mod context;
pub mod error_rate;
pub mod events;
pub mod exposition;
pub mod log;
pub mod metrics;
pub mod observe;
pub mod process;
pub mod traces;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use opentelemetry::trace::{SpanContext, TraceId, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus_client::registry::Registry;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use self::log::LogWriter;
use self::metrics::Metrics;
use crate::config::{Sampler, TelemetryConfig};

/// Handles to all three signals; cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub log: LogWriter,
    level: Arc<Targets>,
    sampler: Option<Sampler>,
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts everything and makes it the process's own.
    pub fn start(config: &TelemetryConfig, registry: &mut Registry) -> anyhow::Result<Self> {
        let log = LogWriter::start(config.log_format, std::io::stdout()).context("no thread for the log")?;
        events::log_panics(log.clone());
        let provider = config.export.as_ref().map(|export| traces::provider(config, export)).transpose()?;
        let spans = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
                .with_context_activation(false)
                .with_tracked_inactivity(false)
                .with_threads(false)
                .with_location(false)
                .with_target(false)
                .with_level(false)
                .with_filter(traces::TraceFilter)
        });
        let events = events::EventLayer(log.clone()).with_filter(events::EventFilter(config.log_level.clone()));
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(spans).with(events))
            .context("telemetry runs already in this process")?;
        Ok(Self {
            metrics: Metrics::new(registry, &log),
            log,
            level: Arc::new(config.log_level.clone()),
            sampler: provider.is_some().then_some(config.sampler),
            provider,
        })
    }

    /// Whether spans of this request are recorded.
    pub fn samples(&self, parent: Option<&SpanContext>, trace_id: TraceId) -> bool {
        self.sampler.is_some_and(|sampler| sampler.draw(parent, trace_id))
    }

    /// Whether lines of this target and level are written.
    pub fn logs(&self, target: &str, level: Level) -> bool {
        self.level.would_enable(target, &level)
    }

    /// Sends what is left. Comes last, and takes no longer than it may, however dead the collector is.
    pub async fn shutdown(self, within: Duration) {
        let until = Instant::now() + within;
        if let Some(provider) = self.provider {
            let flush = tokio::task::spawn_blocking(move || traces::shutdown(&provider, within));
            if tokio::time::timeout(within, flush).await.is_err() {
                tracing::warn!("the collector did not take the last spans in time");
            }
        }
        self.log.flush(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(50)));
    }
}
