//! Keys and stored bytes, on inputs nobody thought of.

use std::collections::HashMap;

use proptest::prelude::*;
use tiered_cache::CacheKey;

/// A scope, or a parameter's name, and the value of either.
type Part = (Option<String>, String);

fn build(entity: &str, parts: &[Part]) -> CacheKey {
    parts
        .iter()
        .fold(CacheKey::builder(entity), |key, (name, value)| match name {
            Some(name) => key.param(name, value),
            None => key.scope(value),
        })
        .build()
}

/// Anything, and what an encoding might be made of: separators, small numbers as tags and lengths, long texts.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab&=:/\\x00-\\x05]{0,4}", 2 => any::<String>(), 1 => "[ab]{90,120}"]
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    prop::collection::vec((prop::option::of(text()), text()), 0..6)
}

/// Nearly the same parts: what a careless encoding would take for them.
fn twist(parts: &[Part], how: u8, at: usize, other: usize) -> Vec<Part> {
    let mut twisted = parts.to_vec();
    if twisted.is_empty() {
        return vec![(None, String::new())];
    }
    let (at, other) = (at % twisted.len(), other % twisted.len());
    let part = &mut twisted[at];
    match how {
        0 => twisted.swap(at, other),
        // A scope poses as a parameter, a parameter as a scope.
        1 => part.0 = if part.0.is_some() { None } else { Some(String::new()) },
        // The border between name and value moves.
        2 => {
            if let (Some(name), Some(first)) = (&mut part.0, part.1.chars().next()) {
                name.push(first);
                part.1.remove(0);
            }
        }
        3 => part.0 = part.0.take().map(|name| std::mem::replace(&mut part.1, name)),
        // Two parts become one.
        4 => {
            let next = twisted.remove(other);
            if let Some(part) = twisted.get_mut(at) {
                part.1 += &format!("&{}={}", next.0.unwrap_or_default(), next.1);
            }
        }
        // A whole key, as it is encoded, becomes a value.
        5 => twisted = vec![(None, String::from_utf8_lossy(build("e", parts).logical()).into_owned())],
        6 => twisted.insert(other, (None, String::new())),
        7 => twisted.insert(other, parts[at].clone()),
        _ => drop(twisted.remove(at)),
    }
    twisted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// T27. The order is part of a key, so lists are compared; a map that is written sorted is such a list.
    #[test]
    fn different_parts_make_different_keys_and_the_same_parts_the_same(
        entities in (text(), text()), one in parts(), other in parts(),
        how in 0u8..=8, at: usize, from: usize,
    ) {
        let twisted = twist(&one, how, at, from);
        let key = build(&entities.0, &one);
        for (entity, parts) in [(&entities.0, &one), (&entities.0, &other), (&entities.0, &twisted), (&entities.1, &one)] {
            let same = entities.0 == *entity && one == *parts;
            let built = build(entity, parts);
            prop_assert_eq!(key == built, same);
            prop_assert_eq!(key.logical() == built.logical(), same);
            prop_assert_eq!(key.hash() == built.hash(), same);
        }
    }

    /// T27. Whatever order a map gives its entries in, sorted they make one key.
    #[test]
    fn different_maps_make_different_keys(
        one in prop::collection::hash_map(text(), text(), 0..6),
        other in prop::collection::hash_map(text(), text(), 0..6),
    ) {
        let key = |map: &HashMap<String, String>| {
            let mut entries: Vec<Part> = map.iter().map(|(name, value)| (Some(name.clone()), value.clone())).collect();
            entries.sort();
            build("e", &entries)
        };
        let again: HashMap<_, _> = one.clone().into_iter().collect();
        prop_assert_eq!(key(&one), key(&again));
        prop_assert_eq!(key(&one) == key(&other), one == other);
        prop_assert_eq!(key(&one).hash() == key(&other).hash(), one == other);
    }

    #[test]
    fn a_keys_hash_is_the_same_however_long_it_is(value in ".{0,300}") {
        let (a, b) = (build("s", &[(None, value.clone())]), build("s", &[(None, value)]));
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
