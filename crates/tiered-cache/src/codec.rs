//! How an entry is written in Redis and memcached. The layout stands in DESIGN.md. What can't be read is a miss, never a panic.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Body, CacheKey};

const MAGIC: &[u8; 3] = b"TC\x01";
const CHECKSUM: usize = 8;

/// An entry with durations instead of instants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) version: u64,
    pub(crate) fresh: Duration,
    pub(crate) life: Duration,
    pub(crate) cost: Duration,
    pub(crate) age: Duration,
    pub(crate) value: Option<Body>,
}

impl Wire {
    /// The same, some time later.
    pub(crate) fn after(self, time: Duration) -> Self {
        Self {
            fresh: self.fresh.saturating_sub(time),
            life: self.life.saturating_sub(time),
            age: self.age + time,
            ..self
        }
    }
}

/// Why bytes are not the entry that was looked for; the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) &'static str);

/// Foreign or truncated.
const MALFORMED: Unreadable = Unreadable("malformed");
const CHECKSUM_WRONG: Unreadable = Unreadable("checksum");
const OTHER_SCHEMA: Unreadable = Unreadable("schema");
/// One with the same hash.
const OTHER_KEY: Unreadable = Unreadable("key");

impl From<TryGetError> for Unreadable {
    fn from(_: TryGetError) -> Self {
        MALFORMED
    }
}

pub(crate) fn encode(key: &CacheKey, schema: u32, wire: &Wire) -> Bytes {
    let logical = key.logical();
    let (etag, body) = wire.value.as_ref().map_or((&[][..], &[][..]), |value| (&value.etag[..], &value.bytes[..]));
    let size = 48 + 12 + logical.len() + etag.len() + body.len() + CHECKSUM;
    let mut out = BytesMut::with_capacity(size);
    out.put_slice(MAGIC);
    out.put_u8(u8::from(wire.value.is_none()));
    out.put_u32(schema);
    out.put_u64(wire.version);
    out.put_u64(millis(wire.fresh));
    out.put_u64(millis(wire.life));
    out.put_u64(u64::try_from(wire.cost.as_micros()).unwrap_or(u64::MAX));
    out.put_u64(millis(wire.age));
    for part in [logical, etag, body] {
        // Bodies beyond the policy's limit, far below 4 GiB, never get here.
        out.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
        out.put_slice(part);
    }
    let sum = xxh3_64(&out);
    out.put_u64(sum);
    out.freeze()
}

pub(crate) fn decode(key: &CacheKey, schema: u32, bytes: &Bytes) -> Result<Wire, Unreadable> {
    let end = bytes.len().checked_sub(CHECKSUM).ok_or(MALFORMED)?;
    if !bytes.starts_with(MAGIC) {
        return Err(MALFORMED);
    }
    if xxh3_64(&bytes[..end]) != (&bytes[end..]).get_u64() {
        return Err(CHECKSUM_WRONG);
    }
    let mut rest = bytes.slice(MAGIC.len()..end);
    let tag = rest.try_get_u8()?;
    if rest.try_get_u32()? != schema {
        return Err(OTHER_SCHEMA);
    }
    let mut number = || rest.try_get_u64();
    let version = number()?;
    let fresh = Duration::from_millis(number()?);
    let life = Duration::from_millis(number()?);
    let cost = Duration::from_micros(number()?);
    let age = Duration::from_millis(number()?);
    if part(&mut rest)? != key.logical() {
        return Err(OTHER_KEY);
    }
    let etag = part(&mut rest)?;
    let bytes = part(&mut rest)?;
    let value = match tag {
        0 => Some(Body { bytes, etag }),
        1 if bytes.is_empty() && etag.is_empty() => None,
        _ => return Err(MALFORMED),
    };
    if !rest.is_empty() {
        return Err(MALFORMED);
    }
    Ok(Wire { version, fresh, life, cost, age, value })
}

fn part(rest: &mut Bytes) -> Result<Bytes, Unreadable> {
    let len = rest.try_get_u32()? as usize;
    if len > rest.len() {
        return Err(MALFORMED);
    }
    Ok(rest.split_to(len))
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "../tests/unit/codec.rs"]
mod tests;
