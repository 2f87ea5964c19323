//! The table `cache_log`, which triggers write: what changed, for caches to forget.

mod read;
mod reader;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tiered_cache::{CacheKey, ChangeLog, LoadError, LogReader};
use tokio::sync::{Mutex, SetOnce};
use tokio::time::{Instant, sleep_until};

use self::reader::Reader;
use super::{Store, StoreError};

/// Things that aren't rows, by the hashes of their keys.
pub const APPEND: &str = "insert into cache_log (hashes) values ($1)";
pub const WAKE: &str = "select pg_notify('cache_log', '')";

/// Each of these wakes every replica.
const BETWEEN_WAKES: Duration = Duration::from_millis(20);

/// The log of this service's database.
pub struct Log {
    store: Store,
    /// The table is there.
    opened: Arc<SetOnce<()>>,
    waking: Mutex<Option<Woken>>,
}

/// How the last call that woke everybody went.
struct Woken {
    began: Instant,
    result: Result<(), LoadError>,
}

impl Log {
    pub fn new(store: Store) -> Self {
        Self { store, opened: Arc::default(), waking: Mutex::default() }
    }

    /// Lets readers begin, which wait until the schema is what they need.
    pub fn open(&self) {
        // Once is enough.
        drop(self.opened.set(()));
    }
}

#[async_trait]
impl ChangeLog for Log {
    fn reader(&self) -> Box<dyn LogReader> {
        Box::new(Reader::new(self.store.clone(), Arc::clone(&self.opened)))
    }

    async fn append(&self, keys: &[CacheKey]) -> Result<(), LoadError> {
        let hashes: Vec<u8> = keys.iter().flat_map(|key| key.hash().to_be_bytes()).collect();
        self.store.query("log_append", APPEND, &[&hashes]).await.map(drop).map_err(StoreError::shared)
    }

    async fn wake(&self) -> Result<(), LoadError> {
        let asked = Instant::now();
        let mut last = self.waking.lock().await;
        if let Some(woken) = &*last {
            // Who waited for this turn was served by another that began after the question.
            if woken.began >= asked {
                return woken.result.clone();
            }
            sleep_until(woken.began + BETWEEN_WAKES).await;
        }
        let began = Instant::now();
        let result = self.store.query("log_wake", WAKE, &[]).await.map(drop).map_err(StoreError::shared);
        *last = Some(Woken { began, result: result.clone() });
        result
    }
}

#[cfg(test)]
#[path = "../../tests/unit/store_log.rs"]
mod tests;
