//! Slower answers, seen through the service's own coarse buckets.

use super::*;

/// Six hundred answers on each side, with these latencies.
fn latencies(canary: Arm, baseline: Arm) -> Sample {
    Sample { canary, baseline, ..step((0, 0), (0, 0), (0, 0)) }
}

/// The verdict of a judge who sees it come in forty equal parts, and how many answers each side had given by then.
fn steadily(sample: &Sample) -> (Verdict, u64) {
    let mut judge = Judge::new(Settings::default());
    let part = |arm: &Arm, parts: u64| {
        let buckets = arm.latency.buckets.iter().map(|(bound, count)| (*bound, count * parts / 40));
        let seconds = arm.latency.seconds * crate::gate::float(parts) / 40.0;
        Arm {
            requests: arm.requests * parts / 40,
            errors: 0,
            latency: Histogram { buckets: buckets.collect(), seconds },
        }
    };
    for parts in 1..=40 {
        let (canary, baseline) = (part(&sample.canary, parts), part(&sample.baseline, parts));
        let verdict = judge.look(&Sample { canary, baseline, ..sample.clone() });
        if verdict != Verdict::Continue {
            return (verdict, sample.canary.requests * parts / 40);
        }
    }
    (Verdict::Continue, sample.canary.requests)
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
    let (verdict, _) = steadily(&latencies(arm(1_000, 0, 0.09), arm(1_000, 0, 0.06)));

    let expected = "p95 99 ms, baseline 74 ms (1.34 times), slower in 100 % of pairs; p < 0.0001";
    assert_eq!(verdict, Verdict::Fail(expected.to_owned()));
}

#[test]
fn a_slow_tail_fails_though_most_answers_are_as_fast_as_before() {
    let canary = both(arm(900, 0, 0.02), &arm(100, 0, 0.4));
    let baseline = both(arm(900, 0, 0.02), &arm(100, 0, 0.09));

    let (verdict, _) = steadily(&latencies(canary, baseline));

    assert!(reason(&verdict).contains("answers above 100 ms, baseline 0 of"), "{verdict:?}");
}

#[test]
fn answers_twice_as_slow_inside_one_bucket_fail_by_their_mean() {
    let (verdict, _) = steadily(&latencies(arm(2_000, 0, 0.004), arm(2_000, 0, 0.002)));

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
    let mut canary = arm(1_000, 0, 0.09);
    canary.latency.buckets.retain(|bucket| bucket.0 != 0.075);

    assert!(matches!(steadily(&latencies(canary, arm(1_000, 0, 0.02))).0, Verdict::Fail(_)));
}

#[test]
fn one_long_stall_of_the_canary_is_no_proof() {
    let mut judge = Judge::new(Settings::default());
    let mut sample = latencies(arm(0, 0, 0.02), arm(0, 0, 0.02));
    for second in 1..=60 {
        let seconds = if second == 20 { 0.4 } else { 0.02 };
        // While it stalls, clients queue up.
        let requests = if second == 20 { 200 } else { 20 };
        sample.canary = both(sample.canary, &arm(requests, 0, seconds));
        sample.baseline = both(sample.baseline, &arm(20, 0, 0.02));
        sample.elapsed = Duration::from_secs(second);
        let verdict = judge.look(&sample);
        assert!(matches!(verdict, Verdict::Continue | Verdict::Pass), "second {second}: {verdict:?}");
    }
    assert_eq!(judge.look(&sample), Verdict::Pass);
}

#[test]
fn a_canary_that_stalls_again_and_again_is_not_promoted() {
    let mut judge = Judge::new(Settings::default());
    let mut sample = latencies(arm(0, 0, 0.02), arm(0, 0, 0.02));
    let ends = (1..=600).find_map(|second| {
        let seconds = if second % 5 == 0 { 0.4 } else { 0.02 };
        sample.canary = both(sample.canary.clone(), &arm(20, 0, seconds));
        sample.baseline = both(sample.baseline.clone(), &arm(20, 0, 0.02));
        sample.elapsed = Duration::from_secs(second);
        Some(judge.look(&sample)).filter(|verdict| *verdict != Verdict::Continue)
    });

    assert!(matches!(ends, Some(Verdict::Fail(_))), "{ends:?}");
}

#[test]
fn a_step_of_days_is_remembered_in_bounded_space_and_with_all_its_differences() {
    let mut blocks = crate::gate::blocks::Blocks::default();
    let (mut canary, mut baseline) = (arm(0, 0, 0.03), arm(0, 0, 0.02));
    for _ in 0..5_000 {
        canary = both(canary, &arm(1, 0, 0.03));
        baseline = both(baseline, &arm(1, 0, 0.02));
        blocks.add(&canary.latency, &baseline.latency);
    }

    assert!((256..=512).contains(&blocks.count()), "{}", blocks.count());
    assert!(blocks.chance(|canary, baseline| canary.mean() - baseline.mean()) < 1e-50);
}
