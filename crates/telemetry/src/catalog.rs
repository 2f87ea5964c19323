//! What may be emitted: every metric, span and event is declared once, and what isn't declared stays inside.

use std::fmt::Write as _;

use tracing::Metadata;

/// What a family's numbers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its samples end in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// A metric family.
#[derive(Debug)]
pub struct Metric {
    /// As in a scrape, without the endings that samples add; the unit is its last word.
    pub name: &'static str,
    /// What its numbers do.
    pub kind: Kind,
    /// Names of all labels.
    pub labels: &'static [&'static str],
    /// Sets of label values at most; each is a series, or a dozen for a histogram.
    pub most: u32,
    /// What it means; the help text of scrapes.
    pub help: &'static str,
}

/// A span, or an event in log and trace.
#[derive(Debug)]
pub struct Named {
    /// The name in the code; a span may show itself by another.
    pub name: &'static str,
    /// Attributes or fields that it may carry, the request's ids apart.
    pub fields: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// Everything that a program may emit.
#[derive(Debug)]
pub struct Catalog {
    /// Crates whose spans and events must be declared; those of other libraries pass as their level says.
    pub own: &'static [&'static str],
    /// Metric families.
    pub metrics: &'static [Metric],
    /// Spans.
    pub spans: &'static [Named],
    /// Events.
    pub events: &'static [Named],
}

impl Metric {
    /// A family whose numbers grow.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], most: u32, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, labels, most, help }
    }

    /// A family whose numbers go up and down.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], most: u32, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, labels, most, help }
    }

    /// A family of observations.
    pub const fn histogram(name: &'static str, labels: &'static [&'static str], most: u32, help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, labels, most, help }
    }
}

impl Named {
    /// A span or an event.
    pub const fn new(name: &'static str, fields: &'static [&'static str], help: &'static str) -> Self {
        Self { name, fields, help }
    }
}

impl Catalog {
    /// The family of this name.
    pub fn metric(&self, name: &str) -> Option<&'static Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// Whether this span or event may leave the process.
    pub fn admits(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let own = self.own.contains(&target.split_once("::").map_or(target, |(root, _)| root));
        let declared = if metadata.is_span() { self.spans } else { self.events };
        !own || declared.iter().any(|named| named.name == metadata.name())
    }

    /// A scrape without families that aren't declared; OpenMetrics, or the older text, where counters are named with
    /// their `_total`.
    pub fn admitted(&self, scrape: &str) -> String {
        let mut text = String::with_capacity(scrape.len());
        let mut admitted = true;
        for line in scrape.lines() {
            let descriptor = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
            if let Some(name) = descriptor.and_then(|rest| rest.split(' ').next()) {
                admitted = self.metric(name.strip_suffix("_total").unwrap_or(name)).is_some();
            }
            if admitted || line == "# EOF" {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}
