//! `tracing` events and panics as log lines.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter, Layer};

use crate::catalog::Catalog;
use crate::context::RequestContext;
use crate::levels::Levels;
use crate::log::{Line, LogWriter};

/// How `tracing` calls an event that was given no name.
const UNNAMED: &str = "event ";

/// Writes each event as a line with the ids of the request that it happened in.
pub(crate) struct EventLayer(pub(crate) LogWriter);

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = self.0.line(*metadata.level(), metadata.target());
        event.record(&mut Fields(&mut line));
        if !metadata.name().starts_with(UNNAMED) {
            line.text("event.name", metadata.name());
        }
        if let Some(context) = RequestContext::current() {
            line.context(&context);
        }
        self.0.write(line);
    }
}

struct Fields<'a>(&'a mut Line);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0.message(&format!("{value:?}")),
            name => self.0.text(name, &format!("{value:?}")),
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.text(field.name(), value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.number(field.name(), value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.number(field.name(), value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.number(field.name(), value);
    }
}

/// Declared events as the level says, and no span: only then does the registry know that a span without a trace isn't
/// needed.
pub(crate) struct EventFilter {
    pub(crate) levels: Arc<Levels>,
    pub(crate) catalog: &'static Catalog,
}

impl EventFilter {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.levels.allow(metadata.target(), metadata.level()) && self.catalog.admits(metadata)
    }
}

impl<S> Filter<S> for EventFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.levels.max()
    }
}

/// Panics are counted and become lines like everything else, on disk before the process may end of them.
pub(crate) fn log_panics(writer: LogWriter) {
    std::panic::set_hook(Box::new(move |panic| {
        writer.panics.inc();
        let mut line = writer.line(tracing::Level::ERROR, "panic");
        line.message(panic.payload_as_str().unwrap_or("a panic without a text"));
        if let Some(context) = RequestContext::current() {
            line.context(&context);
        }
        if let Some(place) = panic.location() {
            line.text("location", &place.to_string());
        }
        writer.write(line);
        writer.flush(Duration::from_millis(200));
    }));
}
