//! Judges a canary: is the new version worse than the running one, is it not, or can nobody say yet?
//!
//! Only arithmetic belongs here: no clock, no I/O, no randomness. The caller counts what the canary, a fresh baseline of
//! the running version at equal weight (so caches and pools are as young as the canary's, as in Kayenta and in Argo's
//! experiments) and the other replicas answered since the step began and its warm-up passed, and asks a [`Judge`] of
//! that step as often as it likes. `docs/canary.md` tells operators what comes of it, with measured error rates.

mod absolute;
mod blocks;
mod errors;
mod histogram;
mod judge;
mod latency;

pub use absolute::limits_exceeded;
pub use histogram::Histogram;
pub use judge::Judge;

use std::time::Duration;

/// What one side answered in this step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arm {
    /// All answers, failed ones included.
    pub requests: u64,
    /// Answers of status 5xx, and requests that got none.
    pub errors: u64,
    /// Durations of as many of the answers as are known.
    pub latency: Histogram,
}

/// Everything known about a step at one moment: totals since its warm-up, never differences since the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The new version.
    pub canary: Arm,
    /// A fresh replica of the running version, at the canary's weight.
    pub baseline: Arm,
    /// The running version's other replicas in the same time. They make error tests sharper, and may be empty; their
    /// latency isn't looked at, because their caches are warm.
    pub others: Arm,
    /// Since the end of the step's warm-up.
    pub elapsed: Duration,
    /// What must never happen to a canary and did: restart, out of memory, panic, lost readiness. One sentence each.
    pub zero_tolerance: Vec<String>,
}

/// What is to be done with the canary.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Not worse: next step.
    Pass,
    /// Worse: roll back; why, in numbers.
    Fail(String),
    /// Time is up and nobody can say; what was missing.
    Inconclusive(String),
    /// Look again later.
    Continue,
}

/// How strict the judge is. The defaults are those whose error rates `docs/canary.md` shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Steps of the canary, over which `alpha` is split (Bonferroni).
    pub steps: u32,
    /// Bound for the chance that a canary as good as its baseline fails in any of its steps.
    pub alpha: f64,
    /// Chance that a step passes a canary whose error rate is worse by the margin that matters.
    pub beta: f64,
    /// Requests that each of canary and baseline must have answered before anything passes.
    pub min_requests: u64,
    /// Time before anything passes.
    pub min_elapsed: Duration,
    /// Time after which the step ends, undecided if need be.
    pub max_elapsed: Duration,
    /// Share of failed answers below which nobody minds differences.
    pub error_floor: f64,
    /// Share of failed answers that is too much whatever the baseline does.
    pub max_error_rate: f64,
    /// Mean duration of an answer that is too much whatever the baseline does.
    pub max_mean: Duration,
    /// Canary's 95th percentile over the baseline's: more is worse.
    pub p95_ratio: f64,
    /// Chance that an answer of the canary is slower than one of the baseline: more is worse, 0.5 is equal.
    pub slower_chance: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: 3,
            alpha: 0.02,
            beta: 0.02,
            min_requests: 500,
            min_elapsed: Duration::from_secs(60),
            max_elapsed: Duration::from_secs(600),
            error_floor: 0.001,
            max_error_rate: 0.02,
            max_mean: Duration::from_secs(1),
            p95_ratio: 1.25,
            slower_chance: 0.56,
        }
    }
}

/// Counts as numbers to calculate with; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 requests in a step")]
fn float(count: u64) -> f64 {
    count as f64
}

/// `p = 0.0004`, or that it is too small to print.
fn p_value(p: f64) -> String {
    if p < 0.0001 { "p < 0.0001".to_owned() } else { format!("p = {p:.4}") }
}

#[cfg(test)]
#[path = "../../tests/unit/gate/mod.rs"]
mod tests;
