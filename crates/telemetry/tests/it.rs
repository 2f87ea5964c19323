//! The parts that need no service around them.

use opentelemetry::trace::TraceId;
use proptest::prelude::*;
use rand::RngExt;
use telemetry::catalog::{Catalog, Metric};
use telemetry::error_rate::{ErrorRate, SECONDS};
use telemetry::log::Line;
use telemetry::settings::{LogFormat, Sampler};

#[test]
fn a_ratio_of_a_half_draws_half_of_the_traces() {
    let half = Sampler { parent_based: true, ratio: 0.5 };
    let ids = (0..10_000).map(|_| TraceId::from(rand::rng().random::<u128>()));
    let drawn = ids.filter(|id| half.draw(None, *id)).count();
    assert!((4_500..5_500).contains(&drawn), "{drawn}");
}

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

proptest! {
    #[test]
    fn any_text_stays_within_one_valid_line(key in "[a-z]{1,8}", value in ".*", message in ".*") {
        let mut line = Line::new(LogFormat::Json, tracing::Level::INFO, "test");
        line.message(&message);
        line.text(&key, &value);
        let bytes = line.finish();
        prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        let object: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(object["message"].as_str().unwrap(), message);
    }
}

#[test]
fn an_undeclared_family_is_left_out_of_a_scrape() {
    const CATALOG: Catalog =
        Catalog { own: &[], metrics: &[Metric::counter("known", &[], 1, "Known")], spans: &[], events: &[] };
    let scrape = "# HELP secret Not known.\n# TYPE secret counter\nsecret_total 1\n\
                  # HELP known Known.\n# TYPE known counter\nknown_total 1\n# EOF\n";
    let admitted = CATALOG.admitted(scrape);
    assert_eq!(admitted, "# HELP known Known.\n# TYPE known counter\nknown_total 1\n# EOF\n");
}
