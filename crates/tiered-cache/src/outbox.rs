//! Invalidations that wait in the source's own database for a Redis that is gone.

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// One undelivered invalidation, as the source keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The row's identity.
    pub id: i64,
    /// What [`WriteCx::outbox`](crate::WriteCx::outbox) gave.
    pub payload: Bytes,
}

/// The table of undelivered invalidations, shared by all replicas.
///
/// Rows may be delivered twice, by two replicas at a time; an invalidation too many does no harm.
#[async_trait]
pub trait OutboxStore: Send + Sync + 'static {
    /// Takes the oldest pending rows.
    async fn take(&self, limit: usize) -> Result<Vec<OutboxRow>, crate::LoadError>;
    /// Removes delivered rows.
    async fn done(&self, ids: &[i64]) -> Result<(), crate::LoadError>;
}

/// The keys of one write, as an outbox row's payload.
pub(crate) fn encode(hashes: &[u128]) -> Bytes {
    let mut out = BytesMut::with_capacity(hashes.len() * 16);
    hashes.iter().for_each(|&hash| out.put_u128(hash));
    out.freeze()
}

/// Trailing bytes that make no whole hash are ignored.
pub(crate) fn decode(mut payload: &[u8]) -> Vec<u128> {
    let mut hashes = Vec::with_capacity(payload.len() / 16);
    while let Ok(hash) = payload.try_get_u128() {
        hashes.push(hash);
    }
    hashes
}
