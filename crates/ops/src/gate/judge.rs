//! One step's decision.
//!
//! - Every look fails a signal of zero tolerance and what the sequential test of errors rejects. It passes what that test
//!   accepts with enough requests and time, within the limits, and if nothing looks slower.
//! - Checkpoints (a quarter of the minimum of requests, and each doubling) and the end of the step fail what the exact test of
//!   errors rejects; from the minimum of requests on, what the limits or the tests of latency reject, too.
//! - What neither failed nor passed by the end is inconclusive, a third outcome as in Argo Rollouts.
//!
//! Tests that are repeated until one rejects reject sooner or later. So checkpoints come by requests, not by how often
//! somebody looks, and the significance is spent over them. Of a step's part, `alpha / steps`, the exact test gets three
//! quarters and the sequential test, the limits and latency a twelfth each. Of that, one half is kept for the end and
//! checkpoint k gets 1 / (k (k + 1)) of the other, which sums up to that half however many there are.

use super::absolute::{keeps_error_limit, limits_exceeded};
use super::blocks::Blocks;
use super::latency::{self, Demand};
use super::{Sample, Settings, Verdict, errors};

/// The exact test's share, in shares of the three others.
const EXACT: f64 = 9.0;
/// What makes latency look suspicious enough to wait.
const SUSPICION: Demand = Demand { alpha: 0.05, blocks: 0.3, strictness: 0.5 };
/// Fewer blocks don't clear anyone of a suspicion.
const FEWEST_BLOCKS: usize = 5;

/// Judges one step of a canary; each step has its own.
#[derive(Clone, Debug)]
pub struct Judge {
    settings: Settings,
    /// The significance that each test but the exact one gets for the step.
    share: f64,
    checkpoints: u32,
    next_checkpoint: u64,
    blocks: Blocks,
}

impl Judge {
    /// A judge for the next step.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let share = settings.alpha / f64::from(settings.steps.max(1)) / (EXACT + 3.0);
        let next_checkpoint = (settings.min_requests / 4).max(1);
        Self { settings, share, checkpoints: 0, next_checkpoint, blocks: Blocks::default() }
    }

    /// The verdict on all that the step has shown up to now. After anything but [`Verdict::Continue`] the step is over.
    pub fn look(&mut self, sample: &Sample) -> Verdict {
        if !sample.zero_tolerance.is_empty() {
            return Verdict::Fail(sample.zero_tolerance.join("; "));
        }
        self.blocks.add(&sample.canary.latency, &sample.baseline.latency);
        let last = sample.elapsed >= self.settings.max_elapsed;
        let significance = self.spend(sample, last);
        if let Some(reason) = self.failure(sample, significance) {
            return Verdict::Fail(reason);
        }
        match self.missing(sample) {
            None => Verdict::Pass,
            Some(missing) if last => Verdict::Inconclusive(missing),
            Some(_) => Verdict::Continue,
        }
    }

    /// What of its share each test may spend at this look.
    fn spend(&mut self, sample: &Sample, last: bool) -> f64 {
        let mut spent = if last { self.share / 2.0 } else { 0.0 };
        let requests = sample.canary.requests.min(sample.baseline.requests);
        if requests >= self.next_checkpoint {
            self.checkpoints += 1;
            let k = f64::from(self.checkpoints);
            spent += self.share / 2.0 / (k * (k + 1.0));
            while self.next_checkpoint <= requests {
                self.next_checkpoint = self.next_checkpoint.saturating_mul(2);
            }
        }
        spent
    }

    fn failure(&self, sample: &Sample, significance: f64) -> Option<String> {
        let settings = &self.settings;
        let sequential = errors::sequential_reject(sample, settings, self.share);
        if sequential.is_some() || significance == 0.0 {
            return sequential;
        }
        errors::two_sample(sample, settings, EXACT * significance)
            .or_else(|| limits_exceeded(&sample.canary, settings, significance))
            .or_else(|| self.slower(sample, Demand { alpha: significance, blocks: 0.0, strictness: 1.0 }))
    }

    /// A few answers don't prove anything here.
    fn slower(&self, sample: &Sample, demand: Demand) -> Option<String> {
        if sample.canary.requests.min(sample.baseline.requests) < self.settings.min_requests {
            return None;
        }
        latency::slower(sample, &self.blocks, &self.settings, demand)
    }

    /// What keeps the canary from passing.
    fn missing(&self, sample: &Sample) -> Option<String> {
        let (settings, canary, baseline) = (&self.settings, sample.canary.requests, sample.baseline.requests);
        let (wanted, after) = (settings.min_requests, sample.elapsed.as_secs());
        if canary.min(baseline) < wanted {
            return Some(format!(
                "{canary} requests to the canary and {baseline} to the baseline in {after} s, {wanted} wanted"
            ));
        }
        if sample.elapsed < settings.min_elapsed {
            return Some(format!("only {after} s of {} s have passed", settings.min_elapsed.as_secs()));
        }
        if !errors::sequential_accept(sample, settings) || !keeps_error_limit(&sample.canary, settings) {
            return Some(format!("{}: neither clearly worse nor clearly as good", errors::compared(sample)));
        }
        let enough = self.blocks.count() >= FEWEST_BLOCKS;
        let blocks = if enough { SUSPICION.blocks } else { 1.0 };
        self.slower(sample, Demand { blocks, ..SUSPICION }).map(|reason| format!("perhaps slower: {reason}"))
    }
}
