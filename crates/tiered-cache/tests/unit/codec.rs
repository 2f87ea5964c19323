//! Stored bytes that nobody wrote like that.

use proptest::prelude::*;

use super::*;

fn key(id: u32) -> CacheKey {
    CacheKey::builder("user").param("id", id).build()
}

fn wire(version: u64, body: Vec<u8>) -> Wire {
    let time = Duration::from_millis(version % 1_000_000);
    let etag = Bytes::from_static(b"W/\"v1\"");
    let value = Some(Body { bytes: body.into(), etag });
    Wire { version, fresh: time, life: time * 2, cost: time, age: time, value }
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(id: u32, schema: u32, version: u64, body: Vec<u8>) {
        let wire = wire(version, body);
        prop_assert_eq!(decode(&key(id), schema, &encode(&key(id), schema, &wire)), Ok(wire));
    }

    /// T26
    #[test]
    fn any_bytes_are_an_error_and_never_a_panic(mut bytes: Vec<u8>, honest: bool) {
        if honest {
            // The start and the checksum are right, so that the parts are looked at.
            bytes.splice(0..0, *MAGIC);
            bytes.extend(xxh3_64(&bytes).to_be_bytes());
        }
        prop_assert!(decode(&key(1), 1, &Bytes::from(bytes)).is_err());
    }

    /// T26
    #[test]
    fn one_wrong_bit_is_noticed(body: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = encode(&key(1), 1, &wire(7, body)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&key(1), 1, &Bytes::from(bytes)).is_err());
    }

    /// T26
    #[test]
    fn cut_bytes_are_an_error(body: Vec<u8>, at: prop::sample::Index) {
        let bytes = encode(&key(1), 1, &wire(7, body));
        prop_assert!(decode(&key(1), 1, &bytes.slice(..at.index(bytes.len()))).is_err());
    }

    #[test]
    fn another_schema_or_key_is_an_error(id in 2u32.., schema in 2u32..) {
        let bytes = encode(&key(1), 1, &wire(7, vec![1]));
        prop_assert_eq!(decode(&key(id), 1, &bytes), Err(OTHER_KEY));
        prop_assert_eq!(decode(&key(1), schema, &bytes), Err(OTHER_SCHEMA));
    }
}
