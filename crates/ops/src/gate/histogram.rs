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

    /// Each bucket of either, in rising order, with the counts of both.
    pub(super) fn beside(&self, other: &Self) -> impl Iterator<Item = (f64, u64, u64)> {
        let (mut left, mut right) = (self.buckets.iter().peekable(), other.buckets.iter().peekable());
        std::iter::from_fn(move || {
            let bounds = [left.peek(), right.peek()].into_iter().flatten().map(|bucket| bucket.0);
            let bound = bounds.min_by(f64::total_cmp)?;
            let own = |bucket: &&(f64, u64)| bucket.0.total_cmp(&bound).is_le();
            Some((
                bound,
                left.next_if(own).map_or(0, |bucket| bucket.1),
                right.next_if(own).map_or(0, |bucket| bucket.1),
            ))
        })
    }

    /// What came since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let buckets = self.beside(before).map(|(bound, now, then)| (bound, now.saturating_sub(then)));
        Self { buckets: buckets.collect(), seconds: (self.seconds - before.seconds).max(0.0) }
    }

    /// Both together.
    pub(super) fn and(&self, more: &Self) -> Self {
        let buckets = self.beside(more).map(|(bound, some, others)| (bound, some + others));
        Self { buckets: buckets.collect(), seconds: self.seconds + more.seconds }
    }
}
