//! Canaries with known faults, drawn at random from a seed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Binomial, Distribution as _, LogNormal};

use super::*;

/// Requests to each side between two looks.
const BATCH: u64 = 25;

/// What two versions really do.
#[derive(Clone, Copy)]
pub struct World {
    /// Share of failed answers: the canary's, and the running version's.
    pub errors: (f64, f64),
    /// So many times slower is the canary; none where latency isn't simulated, because that takes long.
    pub slower: Option<f64>,
    /// Chance that one side stalls between two looks, and so all its answers of that time; the canary's, and the baseline's.
    pub stalls: (f64, f64),
    /// Other replicas of the running version, for each of the baseline.
    pub others: u64,
    pub steps: u32,
    /// Requests to each side before a step's time is up.
    pub most: u64,
}

/// How one canary ended.
pub struct Ending {
    pub verdict: Verdict,
    pub requests: u64,
    /// Whether the reference's gate would have passed the canary, after its first 100 requests.
    pub reference_passes: bool,
}

/// Every step up to the one that doesn't pass.
pub fn canary(world: &World, seed: u64) -> Ending {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ending = Ending { verdict: Verdict::Pass, requests: 0, reference_passes: true };
    for step in 0..world.steps {
        let mut sample = Sample::default();
        let mut judge = Judge::new(Settings { steps: 3, ..Settings::default() });
        ending.verdict = Verdict::Continue;
        while ending.verdict == Verdict::Continue {
            draw(world, &mut sample, &mut rng);
            if step == 0 && sample.canary.requests == 100 {
                ending.reference_passes = sample.canary.errors < 2 && sample.canary.latency.mean() < 1.0;
            }
            let up = sample.canary.requests >= world.most;
            sample.elapsed = Duration::from_secs(if up { 600 } else { 60 });
            ending.verdict = judge.look(&sample);
        }
        ending.requests += sample.canary.requests;
        if ending.verdict != Verdict::Pass {
            break;
        }
    }
    ending
}

fn draw(world: &World, sample: &mut Sample, rng: &mut StdRng) {
    let (canary, running) = world.errors;
    answer(&mut sample.canary, BATCH, (canary, world.stalls.0), world.slower, rng);
    answer(&mut sample.baseline, BATCH, (running, world.stalls.1), world.slower.map(|_| 1.0), rng);
    answer(&mut sample.others, BATCH * world.others, (running, 0.0), None, rng);
}

fn answer(arm: &mut Arm, requests: u64, (errors, stalls): (f64, f64), slower: Option<f64>, rng: &mut StdRng) {
    arm.requests += requests;
    arm.errors += Binomial::new(requests, errors).unwrap().sample(rng);
    let Some(slower) = slower else { return };
    let stall = if stalls > 0.0 && rng.random_bool(stalls) { 0.3 } else { 0.0 };
    // Half of the answers take under 30 ms, a twentieth over 68 ms.
    let seconds = LogNormal::new(0.03_f64.ln(), 0.5).unwrap();
    if arm.latency.buckets.is_empty() {
        arm.latency.buckets = super::arm(0, 0, 0.0).latency.buckets;
    }
    for _ in 0..requests {
        let seconds: f64 = seconds.sample(rng) * slower + stall;
        arm.latency.seconds += seconds;
        let inside = arm.latency.buckets.iter_mut().find(|bucket| seconds <= bucket.0);
        inside.unwrap().1 += 1;
    }
}

/// Percentages of many canaries of one kind.
#[derive(Default)]
pub struct Rates {
    pub reference_passes: f64,
    pub passed: f64,
    pub failed: f64,
    pub inconclusive: f64,
    pub requests: u64,
}

pub fn rates(world: &World, canaries: u64) -> Rates {
    let mut rates = Rates::default();
    let one = 100.0 / crate::gate::float(canaries);
    for seed in 0..canaries {
        let ending = canary(world, seed);
        rates.reference_passes += if ending.reference_passes { one } else { 0.0 };
        rates.requests += ending.requests;
        *match ending.verdict {
            Verdict::Pass => &mut rates.passed,
            Verdict::Fail(_) => &mut rates.failed,
            Verdict::Inconclusive(_) | Verdict::Continue => &mut rates.inconclusive,
        } += one;
    }
    rates.requests /= canaries;
    rates
}
