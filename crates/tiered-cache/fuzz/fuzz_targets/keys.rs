//! Keys: two sequences of parts give the same key exactly when they are the same sequence.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tiered_cache::CacheKey;

const NAMES: [&str; 4] = ["a", "b", "ab", ""];

/// Name (none: a scope) and text.
type Part = (Option<&'static str>, String);

fn parts(data: &[u8]) -> Vec<Part> {
    let part = |part: &[u8]| {
        let (kind, text) = part.split_first().unwrap_or((&0, &[]));
        (NAMES.get(usize::from(kind % 5)).copied(), String::from_utf8_lossy(text).into_owned())
    };
    data.split(|&byte| byte == b'\n').map(part).collect()
}

fn key(parts: &[Part]) -> CacheKey {
    let with = |key: tiered_cache::KeyBuilder, (name, text): &Part| match name {
        Some(name) => key.param(name, text),
        None => key.scope(text),
    };
    parts.iter().fold(CacheKey::builder("thing"), with).build()
}

fuzz_target!(|data: &[u8]| {
    // The two sequences are the halves before and after the first zero byte.
    let at = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    let (one, other) = (parts(&data[..at]), parts(data.get(at + 1..).unwrap_or_default()));
    let (a, b) = (key(&one), key(&other));
    assert_eq!(a == b, one == other);
    assert_eq!(a.hash() == b.hash(), one == other);
    assert_eq!(a.logical() == b.logical(), one == other);
    assert_eq!(key(&one), a);
});
