//! Does a series of measurements rise, how fast, and could that be chance?
//!
//! Theil–Sen's slope is the median of the slopes between all pairs: a spike or a step moves it little, where a line
//! through the first and last point is all spike. Mann–Kendall's test counts the pairs that rise against those that
//! fall, whatever their distribution.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pairs grow with the square: longer series are thinned to this.
const MOST: usize = 600;
/// Fewer can't be told from chance.
const FEWEST: usize = 30;
const CHANCE: f64 = 0.01;

/// A series' rise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trend {
    /// A minute.
    pub per_minute: f64,
    /// The chance of such a rise without a trend.
    pub p: f64,
}

/// What a series of anonymous memory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It grows, and goes on growing.
    Leak,
    /// It doesn't, or gives back what it took.
    NoLeak,
    /// Too few samples to tell.
    TooShort,
}

/// Judges points of seconds and bytes; what grows by more than `most` bytes a minute leaks.
///
/// Growth is a leak when it is there in the whole series and in its last half (a warm-up ends), and where memory was
/// given back, in what was left each time (a collector's sawtooth comes back to the same floor).
pub fn judge(points: &[(f64, f64)], most: f64) -> (Verdict, Option<Trend>) {
    let thinned = thin(points);
    let Some(whole) = trend(&thinned) else { return (Verdict::TooShort, None) };
    let parts = [trend(&thinned[thinned.len() / 2..]), floor(&thinned)];
    let rises = |trend: &Trend| trend.per_minute > most && trend.p < CHANCE;
    let leak = rises(&whole) && parts.iter().flatten().all(rises);
    (if leak { Verdict::Leak } else { Verdict::NoLeak }, Some(whole))
}

/// None for fewer than 15 points, or half of the fewest that are judged.
pub fn trend(points: &[(f64, f64)]) -> Option<Trend> {
    if points.len() < FEWEST / 2 {
        return None;
    }
    let pairs = points.iter().enumerate().flat_map(|(i, a)| points[i + 1..].iter().map(move |b| (a, b)));
    let mut slopes: Vec<_> = pairs.clone().filter(|(a, b)| b.0 > a.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect();
    let score: f64 = pairs.map(|(a, b)| f64::from(b.1.total_cmp(&a.1) as i8)).sum();
    let middle = slopes.len() / 2;
    let (_, median, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    Some(Trend { per_minute: *median * 60.0, p: chance(score, points) })
}

/// Mann–Kendall, two-sided, with the variance that equal values leave.
fn chance(score: f64, points: &[(f64, f64)]) -> f64 {
    let spread = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut values: Vec<_> = points.iter().map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tie| spread(tie.len() as f64)).sum();
    let variance = (spread(values.len() as f64) - ties) / 18.0;
    if variance <= 0.0 {
        return 1.0;
    }
    let z = (score.abs() - 1.0).max(0.0) / variance.sqrt();
    statrs::function::erf::erfc(z / std::f64::consts::SQRT_2)
}

/// The trend of the least that was ever in use again, up to the last time that much was given back.
fn floor(points: &[(f64, f64)]) -> Option<Trend> {
    let (low, high) =
        points.iter().fold((f64::MAX, f64::MIN), |(low, high), point| (low.min(point.1), high.max(point.1)));
    let mut peak = f64::MIN;
    let mut trough = None;
    for (index, point) in points.iter().enumerate() {
        peak = peak.max(point.1);
        if peak - point.1 > (high - low) / 2.0 {
            // The next fall counts from here.
            (trough, peak) = (Some(index), point.1);
        }
    }
    let mut floors = points[..=trough?].to_vec();
    for index in (1..floors.len()).rev() {
        floors[index - 1].1 = floors[index - 1].1.min(floors[index].1);
    }
    // Too little before the fall: nothing shows that it grows.
    trend(&floors).or(Some(Trend { per_minute: 0.0, p: 1.0 }))
}

/// Every n-th point, so that no more than `MOST` are left.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() < FEWEST {
        return Vec::new();
    }
    points.iter().copied().step_by(points.len().div_ceil(MOST)).collect()
}
