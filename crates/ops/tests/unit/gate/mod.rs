//! The judge of canaries: decisions on counts made by hand, error rates on simulated canaries, and the page they fill.

mod characteristics;
mod decisions;
mod hostile;
mod latency;
mod page;
mod simulation;

use std::time::Duration;

use super::{Arm, Histogram, Judge, Sample, Settings, Verdict};

/// So many answers, so many failed, all of them taking this long.
fn arm(requests: u64, errors: u64, seconds: f64) -> Arm {
    let buckets = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, f64::INFINITY];
    let inside = buckets.iter().position(|bound| seconds <= *bound).unwrap();
    let counts = buckets.iter().enumerate().map(|(i, bound)| (*bound, if i == inside { requests } else { 0 }));
    let latency = Histogram { buckets: counts.collect(), seconds: seconds * super::float(requests) };
    Arm { requests, errors, latency }
}

/// Two minutes of a step without latency to speak of; canary's, baseline's and the others' requests and errors.
fn step(canary: (u64, u64), baseline: (u64, u64), others: (u64, u64)) -> Sample {
    let [canary, baseline, others] = [canary, baseline, others].map(|(requests, errors)| arm(requests, errors, 0.002));
    Sample { canary, baseline, others, elapsed: Duration::from_secs(120), zero_tolerance: Vec::new() }
}

/// The verdict of a judge who sees only this.
fn verdict(sample: &Sample) -> Verdict {
    Judge::new(Settings::default()).look(sample)
}

/// The verdict of a judge whose time is up.
fn last_verdict(sample: &Sample) -> Verdict {
    verdict(&Sample { elapsed: Settings::default().max_elapsed, ..sample.clone() })
}

fn reason(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Fail(reason) | Verdict::Inconclusive(reason) => reason,
        Verdict::Pass | Verdict::Continue => panic!("{verdict:?} gives no reason"),
    }
}
