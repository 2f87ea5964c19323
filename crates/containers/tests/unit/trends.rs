//! Ten minutes of anonymous memory, a sample a second: recorded, and computed in the shapes that programs show.

use crate::watch::monitor::Distribution;
use crate::watch::trend::{Trend, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MB: f64 = 1e6;

/// With the threshold that the command has.
fn judge(points: &[(f64, f64)]) -> (Verdict, Option<Trend>) {
    crate::watch::trend::judge(points, MB)
}

/// Ten minutes of `shape`, in MB by minute, with noise of half a megabyte.
fn series(seconds: u32, shape: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let mut random = StdRng::seed_from_u64(8);
    let point = |second| (f64::from(second), (shape(f64::from(second) / 60.0) + random.random_range(-0.5..0.5)) * MB);
    (0..seconds).map(point).collect()
}

fn verdict(shape: impl Fn(f64) -> f64) -> Verdict {
    judge(&series(600, shape)).0
}

/// As `ops memory` recorded it from a container, a sample a second.
fn recorded(csv: &str) -> (Verdict, Option<Trend>) {
    let point = |line: &str| line.split_once(',').map(|(at, bytes)| (at.parse().unwrap(), bytes.parse().unwrap()));
    judge(&csv.lines().filter_map(point).collect::<Vec<_>>())
}

#[test]
fn a_recorded_leak_of_five_megabytes_a_minute_is_found() {
    let (verdict, trend) = recorded(include_str!("fixtures/memory-leak.csv"));
    assert_eq!(verdict, Verdict::Leak);
    assert!((trend.unwrap().per_minute / MB - 5.0).abs() < 0.1, "{trend:?}");
}

#[test]
fn a_recorded_sawtooth_and_a_recorded_warm_up_are_none() {
    for csv in [include_str!("fixtures/memory-sawtooth.csv"), include_str!("fixtures/memory-warm-up.csv")] {
        assert_eq!(recorded(csv).0, Verdict::NoLeak);
    }
}

#[test]
fn five_megabytes_a_minute_are_a_leak_and_measured_to_a_tenth() {
    let (verdict, trend) = judge(&series(600, |minute| 100.0 + 5.0 * minute));
    assert_eq!(verdict, Verdict::Leak);
    let trend = trend.unwrap();
    assert!((trend.per_minute / MB - 5.0).abs() < 0.1 && trend.p < 1e-6, "{trend:?}");
}

#[test]
fn one_and_a_half_megabytes_a_minute_are_a_leak() {
    assert_eq!(verdict(|minute| 100.0 + 1.5 * minute), Verdict::Leak);
}

#[test]
fn half_a_megabyte_a_minute_stays_below_the_threshold() {
    assert_eq!(verdict(|minute| 100.0 + 0.5 * minute), Verdict::NoLeak);
}

#[test]
fn a_leak_that_comes_in_steps_is_a_leak() {
    assert_eq!(verdict(|minute| 100.0 + 10.0 * (minute / 2.0).floor()), Verdict::Leak);
}

#[test]
fn a_warm_up_that_ends_is_none() {
    assert_eq!(verdict(|minute| 200.0 * (1.0 - (-minute).exp())), Verdict::NoLeak);
    assert_eq!(verdict(|minute| 40.0 * minute.min(4.0)), Verdict::NoLeak);
}

#[test]
fn a_collectors_sawtooth_is_none_wherever_it_is_cut() {
    for period in [0.5, 1.0, 3.0, 4.0, 5.5] {
        assert_eq!(verdict(|minute| 50.0 + 80.0 * (minute / period).fract()), Verdict::NoLeak, "{period} minutes");
    }
}

#[test]
fn a_sawtooth_whose_floor_rises_is_a_leak() {
    assert_eq!(verdict(|minute| 50.0 + 8.0 * minute + 100.0 * minute.fract()), Verdict::Leak);
}

#[test]
fn noise_and_a_single_step_are_none() {
    assert_eq!(verdict(|_| 100.0), Verdict::NoLeak);
    assert_eq!(verdict(|minute| if minute > 3.0 { 160.0 } else { 100.0 }), Verdict::NoLeak);
}

#[test]
fn noise_is_taken_for_a_leak_in_none_of_200_series() {
    let mut random = StdRng::seed_from_u64(4);
    let mut noise =
        || (0..300).map(|second| (f64::from(second), random.random_range(90.0..110.0) * MB)).collect::<Vec<_>>();
    assert_eq!((0..200).filter(|_| judge(&noise()).0 == Verdict::Leak).count(), 0);
}

#[test]
fn fewer_than_thirty_samples_are_too_short() {
    assert_eq!(judge(&series(29, |minute| 500.0 * minute)).0, Verdict::TooShort);
    assert_eq!(judge(&series(30, |minute| 500.0 * minute)).0, Verdict::Leak);
}

#[test]
fn percentiles_are_values_that_occurred() {
    let of = Distribution::of((1..=100).map(f64::from).collect());
    assert_eq!((of.p50, of.p95, of.p99, of.peak, of.average), (50.0, 95.0, 99.0, 100.0, 50.5));
    assert_eq!(Distribution::of(vec![]), Distribution::default());
}
