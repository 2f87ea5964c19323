//! L3: memcached, optional. Holds copies that are used only when Redis vouches for them.
//!
//! A copy carries a name that Redis keeps for as long as the copy may be used. Every invalidation takes the name away, and
//! a flushed Redis has none, so a copy that comes back from a flapping node, or outlived its Redis, is never used.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::RemoteError;
use crate::part::Part;
use crate::remote::{Mark, Place};

/// An operation that takes longer is a miss.
const DEADLINE: Duration = Duration::from_millis(50);

/// Where copies are kept. Every error is a miss.
#[async_trait]
pub trait CopyStore: Send + Sync + 'static {
    /// Reads a copy.
    async fn get(&self, place: Place) -> Result<Option<Bytes>, RemoteError>;
    /// Keeps a copy for some time.
    async fn set(&self, place: Place, copy: Bytes, ttl: Duration) -> Result<(), RemoteError>;
}

pub(crate) struct L3 {
    store: Arc<dyn CopyStore>,
    pub(crate) part: Part,
}

impl L3 {
    pub(crate) fn new(store: Arc<dyn CopyStore>) -> Self {
        Self { store, part: Part::used("the store of copies") }
    }

    /// The copy and the time since it was stored, if Redis vouches for it.
    pub(crate) async fn get(&self, place: Place, mark: &Mark) -> Option<(Bytes, Duration)> {
        if mark.copy == 0 {
            return None;
        }
        let mut copy = self.guarded(self.store.get(place)).await??;
        let (name, stamp) = (copy.try_get_u64().ok()?, copy.try_get_u64().ok()?);
        let vouched = name == mark.copy && stamp <= mark.now;
        vouched.then(|| (copy, Duration::from_millis(mark.now - stamp)))
    }

    pub(crate) async fn set(&self, place: Place, name: u64, stamp: u64, entry: &Bytes, ttl: Duration) -> bool {
        let mut copy = BytesMut::with_capacity(16 + entry.len());
        copy.put_u64(name);
        copy.put_u64(stamp);
        copy.put_slice(entry);
        self.guarded(self.store.set(place, copy.freeze(), ttl)).await.is_some()
    }

    /// Within the deadline, and only now and then while it fails.
    async fn guarded<T>(&self, work: impl Future<Output = Result<T, RemoteError>>) -> Option<T> {
        if !self.part.admits() {
            return None;
        }
        let outcome = tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|elapsed| Err(elapsed.into()));
        self.part.used_for("copy", &outcome);
        outcome.ok()
    }
}
