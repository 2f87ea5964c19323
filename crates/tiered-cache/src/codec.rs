//! How an entry is written in Redis and memcached. The layout stands in DESIGN.md. What can't be read is a miss, never a panic.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use xxhash_rust::xxh3::xxh3_64;

use tokio::time::Instant;

use crate::{CacheKey, Entry, Kind};

const MAGIC: &[u8; 3] = b"TC\x01";
const CHECKSUM: usize = 8;

/// An entry with durations instead of instants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) kind: Kind,
    pub(crate) version: u64,
    pub(crate) fresh: Duration,
    pub(crate) life: Duration,
    pub(crate) cost: Duration,
    pub(crate) age: Duration,
    pub(crate) etag: Bytes,
    pub(crate) body: Bytes,
}

impl Wire {
    /// What is stored of an entry at `now`.
    pub(crate) fn of(entry: &Entry, now: Instant) -> Self {
        Self {
            kind: entry.kind,
            version: entry.version,
            fresh: entry.times.expires_at.saturating_duration_since(now),
            life: entry.times.dead_at.saturating_duration_since(now),
            cost: entry.times.cost,
            age: entry.age(now),
            etag: entry.etag.clone(),
            body: entry.body.clone(),
        }
    }

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

/// Why bytes are not the entry that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// Foreign or truncated.
    Malformed,
    Checksum,
    Schema,
    /// Another key with the same hash.
    Key,
}

impl From<TryGetError> for DecodeError {
    fn from(_: TryGetError) -> Self {
        Self::Malformed
    }
}

impl DecodeError {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::Schema => "schema",
            Self::Key => "key",
        }
    }
}

pub(crate) fn encode(key: &CacheKey, schema: u32, wire: &Wire) -> Bytes {
    let logical = key.logical();
    let size = 48 + 12 + logical.len() + wire.etag.len() + wire.body.len() + CHECKSUM;
    let mut out = BytesMut::with_capacity(size);
    out.put_slice(MAGIC);
    out.put_u8(u8::from(wire.kind == Kind::NotFound));
    out.put_u32(schema);
    out.put_u64(wire.version);
    out.put_u64(millis(wire.fresh));
    out.put_u64(millis(wire.life));
    out.put_u64(u64::try_from(wire.cost.as_micros()).unwrap_or(u64::MAX));
    out.put_u64(millis(wire.age));
    for part in [logical, &wire.etag, &wire.body] {
        // Bodies beyond the policy's limit, far below 4 GiB, never get here.
        out.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
        out.put_slice(part);
    }
    let sum = xxh3_64(&out);
    out.put_u64(sum);
    out.freeze()
}

pub(crate) fn decode(key: &CacheKey, schema: u32, bytes: &Bytes) -> Result<Wire, DecodeError> {
    let end = bytes.len().checked_sub(CHECKSUM).ok_or(DecodeError::Malformed)?;
    if !bytes.starts_with(MAGIC) {
        return Err(DecodeError::Malformed);
    }
    if xxh3_64(&bytes[..end]) != (&bytes[end..]).get_u64() {
        return Err(DecodeError::Checksum);
    }
    let mut rest = bytes.slice(MAGIC.len()..end);
    let kind = match rest.try_get_u8()? {
        0 => Kind::Value,
        1 => Kind::NotFound,
        _ => return Err(DecodeError::Malformed),
    };
    if rest.try_get_u32()? != schema {
        return Err(DecodeError::Schema);
    }
    let mut number = || rest.try_get_u64();
    let version = number()?;
    let fresh = Duration::from_millis(number()?);
    let life = Duration::from_millis(number()?);
    let cost = Duration::from_micros(number()?);
    let age = Duration::from_millis(number()?);
    if part(&mut rest)? != key.logical() {
        return Err(DecodeError::Key);
    }
    let etag = part(&mut rest)?;
    let body = part(&mut rest)?;
    if !rest.is_empty() {
        return Err(DecodeError::Malformed);
    }
    Ok(Wire { kind, version, fresh, life, cost, age, etag, body })
}

fn part(rest: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = rest.try_get_u32()? as usize;
    if len > rest.len() {
        return Err(DecodeError::Malformed);
    }
    Ok(rest.split_to(len))
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "../tests/unit/codec.rs"]
mod tests;
