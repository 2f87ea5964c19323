//! Durations by bucket.

use super::float;

/// How long answers took: counts by bucket, and their sum, which no bucket blurs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bound in seconds and the answers in this bucket alone (not cumulative), in rising order; the last bound
    /// may be infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all durations, in seconds.
    pub seconds: f64,
}

/// Where a quantile lies.
pub(super) struct Bucket {
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) quantile: f64,
}

impl Histogram {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.1).sum()
    }

    pub(super) fn above(&self, edge: f64) -> u64 {
        self.buckets.iter().filter(|bucket| bucket.0 > edge).map(|bucket| bucket.1).sum()
    }

    pub(super) fn mean(&self) -> f64 {
        self.seconds / float(self.count().max(1))
    }

    /// At most this: as if each answer had taken as long as its bucket allows.
    pub(super) fn variance_of_mean(&self) -> f64 {
        let (n, mean) = (float(self.count().max(1)), self.mean());
        let squares: f64 = self.buckets.iter().filter(|bucket| bucket.1 > 0).map(|(b, n)| b * b * float(*n)).sum();
        (squares / n - mean * mean).max(0.0) / n
    }

    /// Interpolated in its bucket as by Prometheus's `histogram_quantile`; in the infinite bucket its lower bound.
    pub(super) fn quantile(&self, share: f64) -> Option<Bucket> {
        let (rank, mut below, mut lower) = (share * float(self.count()), 0.0, 0.0);
        for &(upper, count) in &self.buckets {
            let count = float(count);
            if count > 0.0 && below + count >= rank {
                let inside = if upper.is_finite() { (upper - lower) * (rank - below) / count } else { 0.0 };
                return Some(Bucket { lower, upper, quantile: lower + inside });
            }
            below += count;
            lower = upper;
        }
        None
    }

    /// The counts of both in each bucket, in rising order.
    pub(super) fn beside(&self, other: &Self) -> impl Iterator<Item = (f64, f64)> {
        let mut bounds: Vec<f64> = self.buckets.iter().chain(&other.buckets).map(|bucket| bucket.0).collect();
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        bounds.into_iter().map(|bound| (self.inside(bound), other.inside(bound)))
    }

    fn inside(&self, bound: f64) -> f64 {
        float(self.buckets.iter().filter(|bucket| bucket.0 == bound).map(|bucket| bucket.1).sum())
    }
}
