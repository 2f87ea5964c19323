//! The parts that need no service around them.

use std::sync::OnceLock;

use opentelemetry::trace::{SpanContext, SpanId, TraceId};
use proptest::prelude::*;
use rand::RngExt;
use telemetry::catalog::{Catalog, Metric};
use telemetry::context::{RequestContext, baggage};
use telemetry::error_rate::{ErrorRate, SECONDS};
use telemetry::log::Line;
use telemetry::settings::{LogFormat, Sampler};
use telemetry::traces::parent;

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

fn request(sampled: bool, traceparent: &'static str, tracestate: &'static str, given: Option<&str>) -> RequestContext {
    let header = |name: &str| Some(if name == "traceparent" { traceparent } else { tracestate });
    let parent = parent(header);
    RequestContext {
        trace_id: parent.as_ref().map_or(TraceId::INVALID, SpanContext::trace_id),
        span_id: SpanId::from(7),
        request_id: String::new(),
        sampled,
        parent,
        baggage: baggage(given),
        route: OnceLock::new(),
        cache: OnceLock::new(),
    }
}

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[test]
fn what_a_request_calls_gets_its_trace_and_its_callers_state_and_baggage_sampled_or_not() {
    let request = request(false, CALLER, "a=1,b=2", Some("user=1;p=2, b=%20"));
    let headers: Vec<_> = request.outgoing().collect();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-00".to_owned();
    let (state, baggage) = ("a=1,b=2".to_owned(), "user=1;p=2, b=%20".to_owned());
    assert_eq!(headers, [("traceparent", trace), ("tracestate", state), ("baggage", baggage)]);
}

#[test]
fn state_and_baggage_beyond_their_limits_go_no_further() {
    let state = format!("a={}", "x".repeat(250)) + ",b=" + &"y".repeat(250) + ",c=" + &"z".repeat(10);
    for given in ["x".repeat(8193), ",".repeat(64)] {
        let request = request(true, CALLER, state.clone().leak(), Some(&given));
        assert_eq!(request.outgoing().map(|(name, _)| name).collect::<Vec<_>>(), ["traceparent"]);
    }
    assert!(baggage(Some(&"x".repeat(8192))).is_some() && baggage(Some(&",".repeat(63))).is_some());
    assert!(baggage(None).is_none() && baggage(Some("")).is_none());
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
    let older = "# TYPE secret_total counter\nsecret_total 1\n# TYPE known_total counter\nknown_total 1\n";
    assert_eq!(CATALOG.admitted(older), "# TYPE known_total counter\nknown_total 1\n");
}
