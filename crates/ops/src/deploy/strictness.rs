//! Options of `ops deploy` that say how strict a canary's judge is.

use std::time::Duration;

use humantime::parse_duration;

use crate::gate::Settings;

/// The defaults are those whose error rates `docs/canary.md` shows.
#[derive(Debug, Clone, clap::Args)]
pub struct Strictness {
    /// Canary: chance that one as good as its baseline fails.
    #[arg(long, default_value = "0.02", value_parser = chance, value_name = "CHANCE")]
    pub alpha: f64,
    /// Canary: chance that a step passes one whose errors are worse by what matters.
    #[arg(long, default_value = "0.02", value_parser = chance, value_name = "CHANCE")]
    pub beta: f64,
    /// Canary: share of failed answers below which nobody minds differences.
    #[arg(long, default_value = "0.001", value_parser = chance, value_name = "SHARE")]
    pub error_floor: f64,
    /// Share of failed answers that is too much whatever the old version does.
    #[arg(long, default_value = "0.02", value_parser = chance, value_name = "SHARE")]
    pub max_error_rate: f64,
    /// Mean duration of answers that is too long whatever the old version does.
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "DURATION")]
    pub max_mean: Duration,
    /// Canary: its 95th percentile over the baseline's that is too much.
    #[arg(long, default_value = "1.25", value_parser = ratio)]
    pub max_p95_ratio: f64,
}

impl Strictness {
    /// These, and the rest by default.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let Self { alpha, beta, error_floor, max_error_rate, max_mean, max_p95_ratio: p95_ratio } = *self;
        Settings { alpha, beta, error_floor, max_error_rate, max_mean, p95_ratio, ..Settings::default() }
    }
}

fn chance(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value < 0.5, "above 0 and below 0.5")
}

fn ratio(text: &str) -> Result<f64, String> {
    number(text, |value| value > 1.0 && value <= 10.0, "above 1 and at most 10")
}

fn number(text: &str, fits: impl Fn(f64) -> bool, wanted: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value| fits(*value)).ok_or_else(|| format!("a number {wanted} is wanted"))
}
