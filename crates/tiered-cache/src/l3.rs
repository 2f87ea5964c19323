//! L3: memcached, optional. Holds copies that are used only when Redis vouches for them.
//!
//! A copy carries a name that Redis keeps for as long as the copy may be used. Every invalidation takes the name away, and
//! a flushed Redis has none, so a copy that comes back from a flapping node, or outlived its Redis, is never used.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use memcache::exp::{AsyncMemcache, Ttl};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::RemoteError;
use crate::breaker::Breaker;
use crate::remote::{Mark, Place};

/// An operation that takes longer is a miss.
const DEADLINE: Duration = Duration::from_millis(50);
const CONNECTIONS: usize = 8;

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
    pub(crate) breaker: Breaker,
}

impl L3 {
    pub(crate) fn new(store: Arc<dyn CopyStore>) -> Self {
        Self { store, breaker: Breaker::new() }
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

    /// Within the deadline, and not at all while the breaker is open, but for one probe now and then.
    async fn guarded<T>(&self, work: impl Future<Output = Result<T, RemoteError>>) -> Option<T> {
        let now = Instant::now();
        let probe = self.breaker.is_open();
        if probe && !self.breaker.takes_probe(now) {
            return None;
        }
        let outcome = tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|elapsed| Err(elapsed.into()));
        if probe {
            self.breaker.probed(outcome.is_ok(), now);
            return outcome.ok();
        }
        self.breaker.judge(outcome).ok()
    }
}

pub(crate) struct Memcached {
    address: String,
    namespace: String,
    client: OnceCell<AsyncMemcache>,
}

impl Memcached {
    /// `host:port`, with or without `memcache://` before it.
    pub(crate) fn new(url: &str, namespace: &str) -> Self {
        let address = url.split_once("://").map_or(url, |(_, address)| address).trim_end_matches('/');
        Self { address: address.to_owned(), namespace: namespace.to_owned(), client: OnceCell::new() }
    }

    fn key(&self, place: Place) -> String {
        format!("{}:{:032x}:s{}", self.namespace, place.hash, place.schema)
    }

    async fn client(&self) -> Result<&AsyncMemcache, RemoteError> {
        let connect = || {
            let client = AsyncMemcache::builder().timeout(DEADLINE).connect_timeout(DEADLINE);
            client.max_connections(CONNECTIONS).connect_async([self.address.clone()])
        };
        self.client.get_or_try_init(connect).await.map_err(|error| failed(&error))
    }
}

fn failed(error: &memcache::exp::Error) -> RemoteError {
    RemoteError::Failed(Arc::from(error.to_string()))
}

#[async_trait]
impl CopyStore for Memcached {
    async fn get(&self, place: Place) -> Result<Option<Bytes>, RemoteError> {
        let copy: Option<Vec<u8>> = self.client().await?.get(self.key(place)).await.map_err(|error| failed(&error))?;
        Ok(copy.map(Bytes::from))
    }

    async fn set(&self, place: Place, copy: Bytes, ttl: Duration) -> Result<(), RemoteError> {
        let ttl = Ttl::secs(u32::try_from(ttl.as_secs().max(1)).unwrap_or(u32::MAX));
        self.client().await?.set(self.key(place), &copy[..], ttl).await.map_err(|error| failed(&error))
    }
}
