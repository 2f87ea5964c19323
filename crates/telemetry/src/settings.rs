//! What the program that uses this crate decides.

use std::time::Duration;

use tracing_subscriber::filter::Targets;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people at a terminal.
    Pretty,
}

/// Settings of all signals.
#[derive(Clone)]
pub struct TelemetryConfig {
    /// Which events become lines.
    pub log_level: Targets,
    /// How they look.
    pub log_format: LogFormat,
    /// `service.name`.
    pub service_name: String,
    /// `service.version`.
    pub version: &'static str,
    /// Further attributes of the resource.
    pub resource: Vec<(String, String)>,
    /// Where spans go; `None`: nowhere.
    pub export: Option<ExportConfig>,
    /// Which requests are traced.
    pub sampler: Sampler,
}

/// Where spans go.
#[derive(Clone)]
pub struct ExportConfig {
    /// The collector's URL, path included for HTTP.
    pub endpoint: String,
    /// By gRPC, not by HTTP.
    pub grpc: bool,
    /// Sent along with every export.
    pub headers: Vec<(String, String)>,
    /// Longest time for one export.
    pub timeout: Duration,
    /// Spans that wait at most; more are dropped and counted.
    pub queue: usize,
}

/// OpenTelemetry's samplers that need no server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// The caller's decision holds, if there is one.
    pub parent_based: bool,
    /// Share of the traces that are recorded, 0 to 1.
    pub ratio: f64,
}
