//! Traffic, errors and signals.

use super::*;

#[test]
fn a_failing_canary_is_failed_in_numbers_that_people_understand() {
    let verdict = verdict(&step((310, 12), (302, 0), (0, 0)));

    assert_eq!(verdict, Verdict::Fail("12 of 310 answers failed (3.9 %), baseline 0 of 302; p = 0.0003".to_owned()));
}

#[test]
fn a_catastrophe_is_failed_between_checkpoints() {
    let mut judge = Judge::new(Settings::default());
    assert_eq!(judge.look(&step((126, 0), (126, 0), (1000, 1))), Verdict::Continue);

    let verdict = judge.look(&step((140, 10), (140, 0), (1120, 1)));

    assert!(reason(&verdict).contains("10 of 140 answers failed (7.1 %)"), "{verdict:?}");
    assert!(reason(&verdict).contains("times likelier at"), "{verdict:?}");
}

#[test]
fn a_clean_canary_passes_with_enough_requests_and_time() {
    assert_eq!(verdict(&step((1000, 0), (1000, 0), (0, 0))), Verdict::Pass);
}

#[test]
fn nothing_passes_before_the_minimum_of_time() {
    let early = Sample { elapsed: Duration::from_secs(59), ..step((90_000, 0), (90_000, 0), (0, 0)) };

    assert_eq!(verdict(&early), Verdict::Continue);
}

#[test]
fn a_single_error_never_rejects() {
    for requests in 1..2_000 {
        for others in [0, 100_000] {
            let sample = step((requests, 1), (requests, 0), (others, 0));
            for verdict in [verdict(&sample), last_verdict(&sample)] {
                assert!(!matches!(verdict, Verdict::Fail(_)), "{requests} requests: {verdict:?}");
            }
        }
    }
}

#[test]
fn without_traffic_the_step_waits_and_ends_inconclusive() {
    let silence = step((0, 0), (0, 0), (0, 0));

    assert_eq!(verdict(&silence), Verdict::Continue);
    let Verdict::Inconclusive(reason) = last_verdict(&silence) else { panic!() };
    assert_eq!(reason, "0 requests to the canary and 0 to the baseline in 600 s, 500 wanted");
}

#[test]
fn a_canary_without_a_baseline_is_inconclusive() {
    assert!(matches!(last_verdict(&step((5_000, 0), (0, 0), (0, 0))), Verdict::Inconclusive(_)));
}

#[test]
fn little_traffic_is_inconclusive_but_enough_to_fail_what_is_plainly_broken() {
    assert!(matches!(last_verdict(&step((40, 1), (40, 0), (0, 0))), Verdict::Inconclusive(_)));
    assert!(matches!(last_verdict(&step((40, 20), (40, 0), (0, 0))), Verdict::Fail(_)));
}

#[test]
fn a_signal_of_zero_tolerance_fails_at_once() {
    let signals = vec!["restarted once".to_owned(), "2 panics".to_owned()];
    let sample = Sample { zero_tolerance: signals, elapsed: Duration::ZERO, ..step((0, 0), (0, 0), (0, 0)) };

    assert_eq!(verdict(&sample), Verdict::Fail("restarted once; 2 panics".to_owned()));
}

#[test]
fn looking_again_at_the_same_counts_spends_nothing() {
    let mut judge = Judge::new(Settings::default());
    // Would be failed at the first checkpoint, whose significance is greater than the fourth's.
    let first = judge.clone().look(&step((1_000, 16), (1_000, 2), (0, 0)));
    assert!(matches!(first, Verdict::Fail(_)), "{first:?}");
    for requests in [125, 250, 500] {
        assert_eq!(judge.look(&step((requests, 0), (requests, 1), (0, 0))), Verdict::Continue);
    }

    for _ in 0..1_000 {
        assert_eq!(judge.look(&step((1_000, 16), (1_000, 2), (0, 0))), Verdict::Continue);
    }
}

#[test]
fn looks_before_a_checkpoint_spend_nothing() {
    let mut judge = Judge::new(Settings::default());
    for _ in 0..100 {
        assert_eq!(judge.look(&step((100, 0), (100, 0), (0, 0))), Verdict::Continue);
    }

    let first = judge.look(&step((1_000, 16), (1_000, 2), (0, 0)));

    assert!(matches!(first, Verdict::Fail(_)), "{first:?}");
}

#[test]
fn errors_of_a_cold_start_are_not_held_against_a_canary_whose_fresh_baseline_has_them_too() {
    let verdict = last_verdict(&step((1_000, 9), (1_000, 9), (8_000, 1)));

    assert!(!matches!(verdict, Verdict::Fail(_)), "{verdict:?}");
}

#[test]
fn errors_above_the_limit_do_not_pass_however_bad_the_baseline_is() {
    let somewhat = step((1_000, 25), (1_000, 25), (0, 0));
    assert!(matches!(last_verdict(&somewhat), Verdict::Inconclusive(_)));

    let verdict = verdict(&step((1_000, 80), (1_000, 80), (0, 0)));

    assert!(reason(&verdict).starts_with("80 of 1000 answers failed (8.0 %), limit 2.0 %"), "{verdict:?}");
}

#[test]
fn the_limits_can_be_asked_for_without_a_baseline() {
    let settings = Settings::default();

    assert_eq!(crate::gate::limits_exceeded(&arm(1_000, 5, 0.01), &settings, settings.alpha), None);
    assert!(crate::gate::limits_exceeded(&arm(1_000, 50, 0.01), &settings, settings.alpha).is_some());
}
