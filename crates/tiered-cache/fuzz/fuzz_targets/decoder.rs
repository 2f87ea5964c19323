//! Bytes out of a shared tier: whatever they are, no panic, and what is accepted says exactly what was stored.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tiered_cache::{Body, CacheKey};

// The decoder isn't public; its file needs no more than the two names above.
#[path = "../../src/codec.rs"]
mod codec;

fuzz_target!(|data: &[u8]| {
    let key = CacheKey::builder("user").param("id", 1).build();
    // As found: nearly always foreign.
    if let Ok(wire) = codec::decode(&key, 1, &Bytes::copy_from_slice(data)) {
        assert_eq!(codec::encode(&key, 1, &wire), data);
    }
    // With the start and the checksum put right, so that the parts between are read.
    let mut honest = b"TC\x01".to_vec();
    honest.extend_from_slice(data);
    honest.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&honest).to_be_bytes());
    match codec::decode(&key, 1, &Bytes::from(honest.clone())) {
        Ok(wire) => {
            assert_eq!(codec::encode(&key, 1, &wire), honest);
        }
        Err(error) => assert!(!error.0.is_empty()),
    }
});
