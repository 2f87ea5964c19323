//! Slower answers, seen through the service's own coarse buckets.

use super::*;

/// Six hundred answers on each side, with these latencies.
fn latencies(canary: Arm, baseline: Arm) -> Sample {
    Sample { canary, baseline, ..step((0, 0), (0, 0), (0, 0)) }
}

/// Two groups of answers on one side.
fn both(mut some: Arm, others: &Arm) -> Arm {
    some.requests += others.requests;
    some.latency.seconds += others.latency.seconds;
    for (bucket, more) in some.latency.buckets.iter_mut().zip(&others.latency.buckets) {
        bucket.1 += more.1;
    }
    some
}

#[test]
fn an_answer_of_a_second_on_average_fails() {
    let verdict = verdict(&latencies(arm(600, 0, 1.2), arm(600, 0, 1.2)));

    assert_eq!(verdict, Verdict::Fail("answers take 1.20 s on average, limit 1.00 s".to_owned()));
}

#[test]
fn generally_slower_answers_fail_with_both_percentiles() {
    let verdict = verdict(&latencies(arm(600, 0, 0.09), arm(600, 0, 0.06)));

    let expected = "p95 99 ms, baseline 74 ms (1.34 times), slower in 100 % of pairs; p < 0.0001";
    assert_eq!(verdict, Verdict::Fail(expected.to_owned()));
}

#[test]
fn a_slow_tail_fails_though_most_answers_are_as_fast_as_before() {
    let canary = both(arm(540, 0, 0.02), &arm(60, 0, 0.4));
    let baseline = both(arm(540, 0, 0.02), &arm(60, 0, 0.09));

    let verdict = verdict(&latencies(canary, baseline));

    assert!(reason(&verdict).contains("60 of 600 answers above 100 ms, baseline 0 of 600"), "{verdict:?}");
}

#[test]
fn answers_twice_as_slow_inside_one_bucket_fail_by_their_mean() {
    let verdict = verdict(&latencies(arm(2_000, 0, 0.004), arm(2_000, 0, 0.002)));

    assert_eq!(reason(&verdict), "answers take 4.0 ms on average, baseline 2.0 ms; p < 0.0001");
}

#[test]
fn answers_that_barely_cross_a_bucket_s_edge_are_not_slower() {
    let verdict = verdict(&latencies(arm(2_000, 0, 0.0515), arm(2_000, 0, 0.049)));

    assert_eq!(verdict, Verdict::Pass);
}

#[test]
fn what_looks_slower_waits_and_is_inconclusive_in_the_end() {
    let sample = latencies(arm(2_000, 0, 0.0109), arm(2_000, 0, 0.0099));

    assert_eq!(verdict(&sample), Verdict::Continue);
    assert!(reason(&last_verdict(&sample)).starts_with("perhaps slower: p95 24 ms"), "{:?}", last_verdict(&sample));
}

#[test]
fn buckets_of_different_bounds_are_compared() {
    let mut canary = arm(600, 0, 0.09);
    canary.latency.buckets.retain(|bucket| bucket.0 != 0.075);

    assert!(matches!(verdict(&latencies(canary, arm(600, 0, 0.02))), Verdict::Fail(_)));
}
