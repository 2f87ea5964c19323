//! How changes are written on the bus.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tiered_cache::{Change, Changed};

/// Bytes of one change on the bus: what, whose, and the version.
pub(crate) const CHANGE: usize = 25;

pub(crate) fn encode(changes: &[Change]) -> Bytes {
    let mut out = BytesMut::with_capacity(changes.len() * CHANGE);
    for change in changes {
        let (tag, name) = match change.what {
            Changed::Key(hash) => (0, hash),
            Changed::Kind(slot) => (1, u128::from(slot)),
        };
        out.put_u8(tag);
        out.put_u128(name);
        out.put_u64(change.version);
    }
    out.freeze()
}

/// `None` for bytes that another version wrote: what changed can't be known.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::with_capacity(bytes.len() / CHANGE);
    while !bytes.is_empty() {
        let (tag, name) = (bytes.try_get_u8().ok()?, bytes.try_get_u128().ok()?);
        let what = match tag {
            0 => Changed::Key(name),
            1 => Changed::Kind(u8::try_from(name).ok()?),
            _ => return None,
        };
        changes.push(Change { what, version: bytes.try_get_u64().ok()? });
    }
    Some(changes)
}
