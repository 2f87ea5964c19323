//! Limits that hold whatever the baseline does.

use statrs::distribution::{Binomial, DiscreteCDF};

use super::errors::rate;
use super::{Arm, Settings, p_value};

/// The reason to fail: certainly too many errors, or too slow on average. Needs no baseline, so it also serves after the
/// promotion. Below the minimum of requests nothing is said.
#[must_use]
pub fn limits_exceeded(arm: &Arm, settings: &Settings, alpha: f64) -> Option<String> {
    if arm.requests < settings.min_requests {
        return None;
    }
    let (mean, limit) = (arm.latency.mean(), settings.max_mean.as_secs_f64());
    if mean >= limit {
        return Some(format!("answers take {mean:.2} s on average, limit {limit:.2} s"));
    }
    let p = Binomial::new(settings.max_error_rate, arm.requests)
        .map_or(1.0, |errors| arm.errors.checked_sub(1).map_or(1.0, |fewer| errors.sf(fewer)));
    (p <= alpha).then(|| {
        let (found, limit) = (rate(arm) * 100.0, settings.max_error_rate * 100.0);
        let (errors, requests) = (arm.errors, arm.requests);
        format!("{errors} of {requests} answers failed ({found:.1} %), limit {limit:.1} %; {}", p_value(p))
    })
}

/// Whether the limit of errors is kept as observed; until it is, nothing passes.
pub(super) fn keeps_error_limit(arm: &Arm, settings: &Settings) -> bool {
    rate(arm) < settings.max_error_rate
}
