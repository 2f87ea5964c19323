//! Slower answers: three one-sided tests on histograms, because each is blind where another sees.
//!
//! - Ranks: Mann and Whitney's U (Annals of Mathematical Statistics 18, 1947), corrected for ties, as answers in one bucket
//!   are. With many requests it finds differences too small to matter, so an effect size must agree, as in Kayenta's
//!   classifier (A12, the chance that the canary's answer is the slower one: Vargha and Delaney, J. Educational and
//!   Behavioral Statistics 25, 2000), and so must 95th percentile and mean: latencies beside a bucket's edge make any
//!   percentile jump, but not the mean, which comes from an exact sum.
//! - Tail: answers above the bucket of the baseline's 95th percentile, by the exact test of errors. Ranks
//!   don't notice that the slowest tenth got slower.
//! - Mean: Welch's test (Biometrika 34, 1947) with the largest variance that the buckets allow, which sees what happens
//!   inside one bucket.
//!
//! All three take answers for independent, which they aren't; so each must hold over the step's [`Blocks`] as well.

use statrs::distribution::{ContinuousCDF, Normal};

use super::blocks::Blocks;
use super::errors::excess;
use super::histogram::Bucket;
use super::{Histogram, Sample, Settings, float, p_value};

/// How much of a difference is asked for, and how certain.
#[derive(Clone, Copy)]
pub(super) struct Demand {
    pub(super) alpha: f64,
    /// Significance over blocks where that isn't enough: 0 to prove, more to suspect.
    pub(super) blocks: f64,
    /// 1 for the settings' own limits, less to suspect.
    pub(super) strictness: f64,
}

/// What the tests need.
struct Latencies<'a> {
    canary: &'a Histogram,
    baseline: &'a Histogram,
    blocks: &'a Blocks,
    p95: (Bucket, Bucket),
    mean: (f64, f64),
    /// Significance of each test, over answers and over blocks.
    alpha: (f64, f64),
    /// Of the 95th percentiles, and of the means.
    ratio: f64,
    chance: f64,
}

/// The reason to fail.
pub(super) fn slower(sample: &Sample, blocks: &Blocks, settings: &Settings, demand: Demand) -> Option<String> {
    let (canary, baseline) = (&sample.canary.latency, &sample.baseline.latency);
    let alpha = demand.alpha / 3.0;
    let both = Latencies {
        canary,
        baseline,
        blocks,
        p95: (canary.quantile(0.95)?, baseline.quantile(0.95)?),
        mean: (canary.mean(), baseline.mean()),
        alpha: (alpha, alpha.max(demand.blocks)),
        ratio: 1.0 + (settings.p95_ratio - 1.0) * demand.strictness,
        chance: 0.5 + (settings.slower_chance - 0.5) * demand.strictness,
    };
    both.ranks().or_else(|| both.tail()).or_else(|| both.means())
}

impl Latencies<'_> {
    fn ranks(&self) -> Option<String> {
        let (slower, p) = rank_test(self.canary, self.baseline);
        let mean_ratio = 1.0 + (self.ratio - 1.0) / 2.0;
        let agreed = slower > self.chance && self.p95_ratio() > self.ratio && self.mean.0 > self.mean.1 * mean_ratio;
        let found = || format!("{}, slower in {:.0} % of pairs; {}", self.percentiles(), slower * 100.0, p_value(p));
        (agreed && self.significant(p, |canary, baseline| rank_test(canary, baseline).0 - 0.5)).then(found)
    }

    fn tail(&self) -> Option<String> {
        let edge = self.p95.1.upper;
        let (slow, of) = (self.canary.above(edge), self.canary.count());
        let (slow_before, of_before) = (self.baseline.above(edge), self.baseline.count());
        let p = excess((slow, of), (slow_before, of_before));
        let share = |side: &Histogram| float(side.above(edge)) / float(side.count());
        // From one bucket into the next the percentile may have moved by anything.
        let beyond = self.p95.0.lower > edge && self.p95_ratio() > self.ratio;
        (beyond && self.significant(p, |canary, baseline| share(canary) - share(baseline))).then(|| {
            let edge = edge * 1000.0;
            let counts = format!("{slow} of {of} answers above {edge:.0} ms, baseline {slow_before} of {of_before}");
            format!("{}, {counts}; {}", self.percentiles(), p_value(p))
        })
    }

    fn means(&self) -> Option<String> {
        let (canary, baseline) = self.mean;
        let error = (self.canary.variance_of_mean() + self.baseline.variance_of_mean()).sqrt();
        let p = Normal::new(0.0, error).map_or(1.0, |noise| noise.sf(canary - baseline));
        let beyond = canary > baseline * self.ratio;
        (beyond && self.significant(p, |canary, baseline| canary.mean() - baseline.mean())).then(|| {
            let (canary, baseline) = (canary * 1000.0, baseline * 1000.0);
            format!("answers take {canary:.1} ms on average, baseline {baseline:.1} ms; {}", p_value(p))
        })
    }

    fn significant(&self, p: f64, difference: impl Fn(&Histogram, &Histogram) -> f64) -> bool {
        p <= self.alpha.0 && self.blocks.chance(difference) <= self.alpha.1
    }

    fn p95_ratio(&self) -> f64 {
        self.p95.0.quantile / self.p95.1.quantile
    }

    /// "p95 142 ms, baseline 100 ms (1.42 times)".
    fn percentiles(&self) -> String {
        let (canary, baseline) = (self.p95.0.quantile * 1000.0, self.p95.1.quantile * 1000.0);
        format!("p95 {canary:.0} ms, baseline {baseline:.0} ms ({:.2} times)", self.p95_ratio())
    }
}

/// The chance that the canary's answer is the slower of two (a tie counts half), and the one-sided p of that.
fn rank_test(canary: &Histogram, baseline: &Histogram) -> (f64, f64) {
    let (mut u, mut below, mut ties) = (0.0, 0.0, 0.0);
    for (_, here, there) in canary.beside(baseline) {
        let (here, there) = (float(here), float(there));
        u += here * (below + there / 2.0);
        below += there;
        ties += (here + there).powi(3) - (here + there);
    }
    let (canary, baseline) = (float(canary.count()), float(baseline.count()));
    let (pairs, n) = (canary * baseline, canary + baseline);
    let variance = pairs / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    // Where all is one tie there is no variance, and nothing to say.
    let p = Normal::new(pairs / 2.0, variance.sqrt()).map_or(1.0, |ranks| ranks.sf(u - 0.5));
    (u / pairs, p)
}
