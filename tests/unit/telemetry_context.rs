use crate::config::Sampler;
use opentelemetry::trace::TraceId;
use rand::RngExt;

#[test]
fn a_ratio_of_a_half_draws_half_of_the_traces() {
    let half = Sampler { parent_based: true, ratio: 0.5 };
    let ids = (0..10_000).map(|_| TraceId::from(rand::rng().random::<u128>()));
    let drawn = ids.filter(|id| half.draw(None, *id)).count();
    assert!((4_500..5_500).contains(&drawn), "{drawn}");
}
