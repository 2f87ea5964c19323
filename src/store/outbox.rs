//! The table `cache_outbox`: what the cache has to tell Redis when it is back.

use async_trait::async_trait;
use tiered_cache::{LoadError, OutboxRow, OutboxStore};

use super::{Store, StoreError};

/// Joins the transaction of the write that it is about.
pub const PUT: &str = "insert into cache_outbox (payload) values ($1)";
const TAKE: &str = "select id, payload from cache_outbox order by id limit $1";
const DONE: &str = "delete from cache_outbox where id = any($1)";

#[async_trait]
impl OutboxStore for Store {
    async fn take(&self, limit: usize) -> Result<Vec<OutboxRow>, LoadError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.query("outbox_take", TAKE, &[&limit]).await.map_err(StoreError::shared)?;
        let row = |row: &tokio_postgres::Row| OutboxRow { id: row.get(0), payload: row.get::<_, Vec<u8>>(1).into() };
        Ok(rows.iter().map(row).collect())
    }

    async fn done(&self, ids: &[i64]) -> Result<(), LoadError> {
        self.query("outbox_done", DONE, &[&ids]).await.map(drop).map_err(StoreError::shared)
    }
}
