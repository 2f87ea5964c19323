use crate::telemetry::error_rate::*;

#[test]
fn only_the_last_minute_counts() {
    let rate = ErrorRate::default();
    rate.record(true);
    rate.record(false);
    assert_eq!(rate.percent().to_string(), "50");
    (0..SECONDS).for_each(|_| rate.tick());
    rate.record(false);
    assert_eq!(rate.percent().to_string(), "0", "the error is a minute old");
}
