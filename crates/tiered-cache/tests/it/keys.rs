//! Keys and stored bytes, on inputs nobody thought of.

use proptest::prelude::*;
use tiered_cache::CacheKey;

fn build(scope: &str, params: &[(usize, String)]) -> CacheKey {
    const NAMES: [&str; 4] = ["a", "b", "ab", ""];
    let builder = CacheKey::builder("thing").scope(scope);
    params.iter().fold(builder, |key, (name, value)| key.param(NAMES[name % NAMES.len()], value)).build()
}

proptest! {
    /// T27
    #[test]
    fn different_parts_make_different_keys(
        one in ("[a-c&=]{0,3}", prop::collection::vec((0usize..4, "[a-c&=]{0,4}|[x]{100}"), 0..4)),
        other in ("[a-c&=]{0,3}", prop::collection::vec((0usize..4, "[a-c&=]{0,4}|[x]{100}"), 0..4)),
    ) {
        let (a, b) = (build(&one.0, &one.1), build(&other.0, &other.1));
        prop_assert_eq!(a == b, one == other);
        prop_assert_eq!(a.hash() == b.hash(), one == other);
    }

    #[test]
    fn a_keys_hash_is_the_same_however_long_it_is(value in ".{0,300}") {
        let (a, b) = (build("s", &[(0, value.clone())]), build("s", &[(0, value)]));
        prop_assert_eq!(a.hash(), b.hash());
        prop_assert_eq!(a.logical(), b.logical());
    }
}

#[test]
fn crafted_values_do_not_collide() {
    let joined = CacheKey::builder("e").param("a", "1&b=2").build();
    let apart = CacheKey::builder("e").param("a", 1).param("b", 2).build();
    let tenant_a = CacheKey::builder("e").scope("a").param("id", 1).build();
    let tenant_b = CacheKey::builder("e").scope("b").param("id", 1).build();
    let posing = CacheKey::builder("e").param("a", "").param("id", 1).build();
    let all = [joined, apart, tenant_a, tenant_b, posing];
    for (i, one) in all.iter().enumerate() {
        for other in &all[i + 1..] {
            assert_ne!(one, other);
            assert_ne!(one.hash(), other.hash());
        }
    }
}

/// The hash is part of what two versions of a service share: it must never change.
#[test]
fn a_keys_hash_is_fixed() {
    let key = CacheKey::builder("user").param("id", 1).build();
    assert_eq!(format!("{:032x}", key.hash()), "268d0356a5c5d29fc169805f4f77dc14");
}
