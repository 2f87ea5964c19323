//! Failed answers: two tests that reject, one that accepts.
//!
//! - [`two_sample`]: if the versions are equal, each error is the canary's with the canary's share of the requests, so
//!   its errors among all errors are binomial: exact for any count and any common error rate (Przyborowski and Wilenski,
//!   Biometrika 31, 1940). For looks planned beforehand.
//! - [`sequential_reject`]: Wald's sequential probability ratio test (Annals of Mathematical Statistics 16, 1945), valid
//!   at every look: ends a catastrophe after a handful of errors. It measures against the most that the running version's
//!   error rate may be, so that a lucky baseline doesn't fail an equal canary.
//! - [`sequential_accept`]: the same test's other bound, for passing: the canary isn't worse by what matters.

use statrs::distribution::{Binomial, DiscreteCDF};

use super::{Arm, Sample, Settings, float, p_value};

/// Below this many no test rejects: a single error says nothing.
const FEWEST: u64 = 3;
/// One-sided 99 % of the normal distribution.
const Z: f64 = 2.326;

/// The running version's answers: baseline and others together.
fn running(sample: &Sample) -> Arm {
    let Sample { baseline, others, .. } = sample;
    Arm { requests: baseline.requests + others.requests, errors: baseline.errors + others.errors, ..Arm::default() }
}

pub(super) fn rate(arm: &Arm) -> f64 {
    float(arm.errors) / float(arm.requests.max(1))
}

/// The increase that matters: three times the rate, but at least half a point and at most two.
fn margin(rate: f64) -> f64 {
    (2.0 * rate).clamp(0.005, 0.02)
}

/// What the running version is granted: the worse of its fresh baseline and of all its replicas, or the floor.
fn granted(sample: &Sample, settings: &Settings) -> f64 {
    rate(&sample.baseline).max(rate(&running(sample))).max(settings.error_floor)
}

/// Enough errors, and an observed increase closer to the one that matters than to none.
fn matters(sample: &Sample, settings: &Settings) -> bool {
    let granted = granted(sample, settings);
    sample.canary.errors >= FEWEST && rate(&sample.canary) > granted + margin(granted) / 2.0
}

/// Chance of at least so many errors in `left`, given the errors in both, if both fail equally often.
pub(super) fn excess((errors_left, left): (u64, u64), (errors_right, right): (u64, u64)) -> f64 {
    if errors_left == 0 || left == 0 {
        return 1.0;
    }
    let share = float(left) / float(left + right);
    Binomial::new(share, errors_left + errors_right).map_or(1.0, |errors| errors.sf(errors_left - 1))
}

/// The reason to fail, if the canary's errors are too many at this significance.
pub(super) fn two_sample(sample: &Sample, settings: &Settings, alpha: f64) -> Option<String> {
    let (canary, running) = (&sample.canary, running(sample));
    let p = excess((canary.errors, canary.requests), (running.errors, running.requests));
    (p <= alpha && matters(sample, settings)).then(|| format!("{}; {}", compared(sample), p_value(p)))
}

/// The logarithm of how much likelier these answers are at an error rate of `worse` than at one of `fine`.
fn evidence(arm: &Arm, fine: f64, worse: f64) -> f64 {
    let good = arm.requests.saturating_sub(arm.errors);
    float(arm.errors) * (worse / fine).ln() + float(good) * ((1.0 - worse) / (1.0 - fine)).ln()
}

/// The reason to fail at any look, however early.
pub(super) fn sequential_reject(sample: &Sample, settings: &Settings, alpha: f64) -> Option<String> {
    let fine = upper_bound(&running(sample)).max(granted(sample, settings));
    let worse = (fine + 0.01).max(5.0 * fine).min(0.99);
    let bound = ((1.0 - settings.beta) / alpha).ln();
    let found = evidence(&sample.canary, fine, worse);
    (worse > fine && found >= bound && matters(sample, settings)).then(|| {
        let likelier = format!("likelier at {:.1} % than at {:.1} %", worse * 100.0, fine * 100.0);
        format!("{}; {:.0} times {likelier}", compared(sample), found.exp().min(1e6))
    })
}

/// Whether an error rate that is worse by what matters is ruled out.
pub(super) fn sequential_accept(sample: &Sample, settings: &Settings) -> bool {
    let fine = granted(sample, settings);
    let worse = (fine + margin(fine)).min(1.0);
    evidence(&sample.canary, fine, worse) <= settings.beta.ln()
}

/// Wilson's score bound (JASA 22, 1927): the most that the error rate may be; 1 where nothing was asked.
fn upper_bound(arm: &Arm) -> f64 {
    let (n, p, z2) = (float(arm.requests), rate(arm), Z * Z);
    if arm.requests == 0 {
        return 1.0;
    }
    (p + z2 / (2.0 * n) + Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt()) / (1.0 + z2 / n)
}

/// "12 of 310 answers failed (3.9 %), baseline 0 of 302".
pub(super) fn compared(sample: &Sample) -> String {
    let Sample { canary, baseline, others, .. } = sample;
    let percent = rate(canary) * 100.0;
    let (errors, requests) = (canary.errors, canary.requests);
    let mut text = format!("{errors} of {requests} answers failed ({percent:.1} %)");
    text += &format!(", baseline {} of {}", baseline.errors, baseline.requests);
    if others.requests > 0 {
        text += &format!(", other replicas {} of {}", others.errors, others.requests);
    }
    text
}
