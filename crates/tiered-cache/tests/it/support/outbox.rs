//! An outbox in memory, and writes that leave their invalidation there.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tiered_cache::{LoadError, OutboxRow, OutboxStore, TieredCache, Write, WriteError};

use super::{Down, Link, Source, SourceDown, key};

/// An outbox table in memory, and whether the database can be reached.
#[derive(Clone, Default)]
pub struct Table {
    rows: Arc<Mutex<Vec<OutboxRow>>>,
    pub down: Arc<Mutex<bool>>,
    /// Is cut as soon as the table was read.
    pub cut: Arc<Mutex<Option<Link>>>,
}

impl Table {
    fn insert(&self, payload: bytes::Bytes) {
        let mut rows = self.rows.lock().unwrap();
        let id = i64::try_from(rows.len()).unwrap();
        rows.push(OutboxRow { id, payload });
    }

    pub fn len(&self) -> usize {
        self.rows.lock().unwrap().len()
    }
}

#[async_trait]
impl OutboxStore for Table {
    async fn take(&self, limit: usize) -> Result<Vec<OutboxRow>, LoadError> {
        if *self.down.lock().unwrap() {
            return Err(Arc::new(SourceDown));
        }
        if let Some(link) = self.cut.lock().unwrap().take() {
            link.set(Some(Down::Refused));
        }
        Ok(self.rows.lock().unwrap().iter().take(limit).cloned().collect())
    }

    async fn done(&self, ids: &[i64]) -> Result<(), LoadError> {
        self.rows.lock().unwrap().retain(|row| !ids.contains(&row.id));
        Ok(())
    }
}

pub async fn write_through_outbox(
    cache: &TieredCache,
    source: &Source,
    table: &Table,
) -> Result<u64, WriteError<SourceDown>> {
    let (source, table) = (source.clone(), table.clone());
    let txn = |cx: tiered_cache::WriteCx| async move {
        if let Some(payload) = cx.outbox() {
            table.insert(payload.clone());
        }
        source.commit(cx).await
    };
    cache.write(vec![key(1)], Write::Available, txn).await
}
