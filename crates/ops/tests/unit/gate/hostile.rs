//! Whatever the counts are.

use proptest::prelude::*;

use super::*;

fn rank(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Continue | Verdict::Inconclusive(_) => 1,
        Verdict::Fail(_) => 2,
    }
}

fn counts() -> impl Strategy<Value = (u64, u64)> {
    (0_u64..20_000).prop_flat_map(|requests| (Just(requests), 0..=requests.min(200)))
}

proptest! {
    #[test]
    fn more_errors_of_the_canary_never_better_the_verdict(
        (requests, errors) in counts(), baseline in counts(), others in counts(), more in 0_u64..50,
    ) {
        let more = (errors + more).min(requests);
        let [fewer, more] = [errors, more].map(|errors| step((requests, errors), baseline, others));

        prop_assert!(rank(&verdict(&fewer)) <= rank(&verdict(&more)));
        prop_assert!(rank(&last_verdict(&fewer)) <= rank(&last_verdict(&more)));
    }

    #[test]
    fn no_counts_however_absurd_make_the_judge_panic(
        counts in prop::array::uniform6(0_u64..1_000_000), buckets in prop::collection::vec((0.0..9.0, 0_u64..900), 0..9),
    ) {
        let [canary, failed, baseline, broken, others, lost] = counts;
        let mut sample = step((canary, failed), (baseline, broken), (others, lost));
        sample.canary.latency = Histogram { buckets, seconds: 1.0 };

        verdict(&sample);
        last_verdict(&sample);
    }
}
