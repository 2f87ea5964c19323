//! How often the judge errs, on 200 canaries of a kind; `docs/canary.md` has these kinds at 1,000 each.
//!
//! The bounds aren't a matter of lucky seeds. Of 10,000 canaries of a kind, at most 0.3 % of the equal ones asked for here were
//! rolled back, and 97.9 % of those with ten times the errors failed among others: with other seeds the
//! closest of these tests would break about four times in a thousand.

use super::simulation::{World, rates};

const CANARIES: u64 = 200;
/// A canary at 10 % of the traffic beside its baseline, eight other replicas' worth of traffic on the running version.
pub const AMONG_OTHERS: World =
    World { errors: (0.0, 0.0), slower: None, stalls: (0.0, 0.0), others: 8, steps: 1, most: 1_500 };
/// Nothing but the canary and its baseline.
pub const ALONE: World = World { others: 0, ..AMONG_OTHERS };

#[test]
fn at_most_2_percent_of_equal_canaries_are_rolled_back() {
    for errors in [0.0, 0.001, 0.005, 0.01] {
        for (world, most) in [(AMONG_OTHERS, 6_000), (ALONE, 12_000)] {
            let world = World { errors: (errors, errors), steps: 3, most, ..world };

            let rates = rates(&world, CANARIES);

            assert!(rates.failed + rates.inconclusive <= 2.0, "{errors}: {} % passed", rates.passed);
        }
    }
}

#[test]
fn ten_times_the_errors_are_failed_at_1500_requests_among_other_replicas() {
    let rates = rates(&World { errors: (0.01, 0.001), ..AMONG_OTHERS }, CANARIES);

    assert!(rates.failed >= 95.0, "{} %", rates.failed);
}

#[test]
fn ten_times_the_errors_are_not_promoted_at_1500_requests_with_two_arms_only() {
    let rates = rates(&World { errors: (0.01, 0.001), ..ALONE }, CANARIES);

    assert!(rates.failed + rates.inconclusive >= 95.0, "{} % passed", rates.passed);
    assert!(rates.failed >= 50.0, "{} % failed", rates.failed);
}

#[test]
fn ten_times_the_errors_are_failed_at_4000_requests_with_two_arms_only() {
    let rates = rates(&World { errors: (0.01, 0.001), most: 4_000, ..ALONE }, CANARIES);

    assert!(rates.failed >= 95.0, "{} %", rates.failed);
}

#[test]
fn five_percent_of_errors_end_a_canary_within_ten_failed_answers_on_average() {
    let rates = rates(&World { errors: (0.05, 0.0), ..AMONG_OTHERS }, CANARIES);

    assert!(rates.failed >= 99.0 && rates.requests <= 200, "{} %, {} requests", rates.failed, rates.requests);
}

#[test]
fn forty_percent_slower_is_failed() {
    let rates = rates(&World { errors: (0.001, 0.001), slower: Some(1.4), ..AMONG_OTHERS }, CANARIES);

    assert!(rates.failed >= 95.0, "{} %", rates.failed);
}

#[test]
fn five_percent_slower_is_not_rolled_back() {
    let world = World { errors: (0.001, 0.001), slower: Some(1.05), most: 6_000, ..AMONG_OTHERS };

    let rates = rates(&world, CANARIES);

    assert!(rates.failed + rates.inconclusive <= 2.0, "{} % passed", rates.passed);
}

#[test]
fn stalls_that_hit_both_sides_by_chance_fail_at_most_2_percent_of_equal_canaries() {
    let world = World { slower: Some(1.0), stalls: (0.03, 0.03), steps: 3, most: 6_000, ..AMONG_OTHERS };

    let rates = rates(&world, CANARIES);

    assert!(rates.failed <= 2.0, "{} % failed, {} % inconclusive", rates.failed, rates.inconclusive);
    println!("{} % inconclusive, {} requests", rates.inconclusive, rates.requests);
}
