//! L3 of a [`tiered_cache`] in memcached.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use memcache::exp::{AsyncMemcache, Error, Ttl};
use tiered_cache::{CopyStore, Place, RemoteError};
use tokio::sync::OnceCell;

/// As long as the cache waits for a copy.
const DEADLINE: Duration = Duration::from_millis(50);
const CONNECTIONS: usize = 8;

/// Copies in one memcached.
pub struct Memcached {
    address: String,
    namespace: String,
    client: OnceCell<AsyncMemcache>,
}

impl Memcached {
    /// One at `host:port`, with or without `memcache://` before it, whose keys begin with `namespace`. Connects when it is
    /// first used.
    pub fn new(url: &str, namespace: &str) -> Self {
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

fn failed(error: &Error) -> RemoteError {
    RemoteError::Failed(Arc::from(error.to_string()))
}

#[async_trait]
impl CopyStore for Memcached {
    async fn get(&self, place: Place) -> Result<Option<Bytes>, RemoteError> {
        let copy: Option<Vec<u8>> = self.client().await?.get(&self.key(place)).await.map_err(|error| failed(&error))?;
        Ok(copy.map(Bytes::from))
    }

    async fn set(&self, place: Place, copy: Bytes, ttl: Duration) -> Result<(), RemoteError> {
        let ttl = Ttl::secs(u32::try_from(ttl.as_secs().max(1)).unwrap_or(u32::MAX));
        self.client().await?.set(&self.key(place), &copy[..], ttl).await.map_err(|error| failed(&error))
    }
}
