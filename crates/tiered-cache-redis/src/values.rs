//! How values stand in Redis: their keys, and what is written in front of them. DESIGN.md has the list.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tiered_cache::Found;

/// Digits in front of every entry: when it was stored, by Redis's clock, in milliseconds.
const STAMP: usize = 16;

/// The names of the keys of one cache that follows one log. They share a hash slot, since one script uses several.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(namespace: &str, identity: u64) -> Self {
        Self { prefix: format!("{{{namespace}}}:{identity:016x}") }
    }

    pub(crate) fn state(&self) -> String {
        format!("{}:state", self.prefix)
    }

    pub(crate) fn bus(&self) -> String {
        format!("{}:bus", self.prefix)
    }

    pub(crate) fn replicas(&self) -> String {
        format!("{}:replicas", self.prefix)
    }

    pub(crate) fn values(&self, hash: u128) -> String {
        format!("{}:v:{hash:032x}", self.prefix)
    }

    pub(crate) fn lease(&self, hash: u128) -> String {
        format!("{}:l:{hash:032x}", self.prefix)
    }

    pub(crate) fn mark(&self, hash: u128) -> String {
        format!("{}:m:{hash:032x}", self.prefix)
    }
}

/// The field of a hash of values that holds those of one schema.
pub(crate) fn field(schema: u32) -> String {
    format!("s{schema}")
}

/// The field of the state that counts how often all of a slot was forgotten.
pub(crate) fn counter(slot: u8) -> String {
    format!("g{slot}")
}

/// What stands in front of a value tells when it was stored. Foreign bytes get some stamp and fail to decode.
pub(crate) fn found(value: &Bytes, now: u64, cleaned: u64) -> Found {
    let stamp = value.slice(..STAMP.min(value.len()));
    let age = Duration::from_millis(now.saturating_sub(digits(&stamp)));
    Found { bytes: value.slice(stamp.len()..), stamp, age, cleaned }
}

fn digits(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The name of an entry of a stream: milliseconds, and a number; (0, 0) for what isn't one.
pub(crate) fn entry_id(id: &str) -> (u64, u64) {
    let parts = id.split_once('-').and_then(|(time, number)| Some((time.parse().ok()?, number.parse().ok()?)));
    parts.unwrap_or_default()
}

pub(crate) fn text(value: Option<&Value>) -> &[u8] {
    match value {
        Some(Value::BulkString(bytes)) => bytes,
        Some(Value::SimpleString(text)) => text.as_bytes(),
        _ => &[],
    }
}

/// 0 for what isn't a whole number.
pub(crate) fn number(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
        other => digits(text(other)),
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds; -1: unknown.
pub(crate) fn ago(value: Option<&Value>) -> Option<Duration> {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).ok().map(Duration::from_millis),
        _ => None,
    }
}
