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

use statrs::distribution::{ContinuousCDF, Normal};

use super::errors::excess;
use super::histogram::Bucket;
use super::{Histogram, Sample, Settings, float, p_value};

/// What the tests need of the two histograms.
struct Latencies<'a> {
    canary: &'a Histogram,
    baseline: &'a Histogram,
    p95: (Bucket, Bucket),
    mean: (f64, f64),
}

/// The reason to fail at this significance; `strictness` is 1 for the settings' own limits, less to merely suspect.
pub(super) fn slower(sample: &Sample, settings: &Settings, alpha: f64, strictness: f64) -> Option<String> {
    let (canary, baseline) = (&sample.canary.latency, &sample.baseline.latency);
    let p95 = (canary.quantile(0.95)?, baseline.quantile(0.95)?);
    let both = Latencies { canary, baseline, p95, mean: (canary.mean(), baseline.mean()) };
    let limit = 1.0 + (settings.p95_ratio - 1.0) * strictness;
    let chance = 0.5 + (settings.slower_chance - 0.5) * strictness;
    let alpha = alpha / 3.0;
    both.ranks(alpha, limit, chance).or_else(|| both.tail(alpha, limit)).or_else(|| both.means(alpha, limit))
}

impl Latencies<'_> {
    fn ranks(&self, alpha: f64, limit: f64, chance: f64) -> Option<String> {
        let (slower, p) = self.rank_test();
        let mean_limit = 1.0 + (limit - 1.0) / 2.0;
        let agreed = slower > chance && self.p95_ratio() > limit && self.mean.0 > self.mean.1 * mean_limit;
        let found = || format!("{}, slower in {:.0} % of pairs; {}", self.percentiles(), slower * 100.0, p_value(p));
        (p <= alpha && agreed).then(found)
    }

    fn tail(&self, alpha: f64, limit: f64) -> Option<String> {
        let edge = self.p95.1.upper;
        let (slow, of) = (self.canary.above(edge), self.canary.count());
        let (slow_before, of_before) = (self.baseline.above(edge), self.baseline.count());
        let p = excess((slow, of), (slow_before, of_before));
        // From one bucket into the next the percentile may have moved by anything.
        let certain = self.p95.0.lower > edge;
        (p <= alpha && certain && self.p95_ratio() > limit).then(|| {
            let edge = edge * 1000.0;
            let counts = format!("{slow} of {of} answers above {edge:.0} ms, baseline {slow_before} of {of_before}");
            format!("{}, {counts}; {}", self.percentiles(), p_value(p))
        })
    }

    fn means(&self, alpha: f64, limit: f64) -> Option<String> {
        let (canary, baseline) = self.mean;
        let error = (self.canary.variance_of_mean() + self.baseline.variance_of_mean()).sqrt();
        let p = Normal::new(0.0, error).map_or(1.0, |noise| noise.sf(canary - baseline));
        (p <= alpha && canary > baseline * limit).then(|| {
            let (canary, baseline) = (canary * 1000.0, baseline * 1000.0);
            format!("answers take {canary:.1} ms on average, baseline {baseline:.1} ms; {}", p_value(p))
        })
    }

    /// The chance that the canary's answer is the slower of two (a tie counts half), and the one-sided p of that.
    fn rank_test(&self) -> (f64, f64) {
        let (canary, baseline) = (float(self.canary.count()), float(self.baseline.count()));
        let (mut u, mut below, mut ties) = (0.0, 0.0, 0.0);
        for (here, there) in self.canary.beside(self.baseline) {
            u += here * (below + there / 2.0);
            below += there;
            ties += (here + there).powi(3) - (here + there);
        }
        let (pairs, n) = (canary * baseline, canary + baseline);
        let variance = pairs / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
        // Where all is one tie there is no variance, and nothing to say.
        let p = Normal::new(pairs / 2.0, variance.sqrt()).map_or(1.0, |ranks| ranks.sf(u - 0.5));
        (u / pairs, p)
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
