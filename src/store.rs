//! Postgres: one way to run a statement, one file per table.
//!
//! Every operation has a name, which is its label in metrics and spans. Waiting for a connection is measured apart
//! from the query, both are bounded, and only what certainly had no effect is tried again.

pub mod connect;
pub mod error;
pub mod migrations;
pub mod users;

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool, PoolError, Transaction};
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tracing::Instrument;

use self::error::{Remedy, StoreError, remedy};
use crate::config::DatabaseConfig;
use crate::telemetry::metrics::{DatabaseLabels, Metrics, PoolLabels, count};

/// How often a transaction that lost a race is tried.
const ATTEMPTS: u32 = 3;
/// Added to the server's own timeout, so that the server, which cleans up better, is first.
const GRACE: Duration = Duration::from_secs(1);
/// Connections beyond the minimum are closed when nobody has used them for this long.
const IDLE: Duration = Duration::from_secs(600);

/// The database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    config: Arc<DatabaseConfig>,
    metrics: Metrics,
}

pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Store {
    /// A store that connects when it is first used.
    pub fn new(config: &DatabaseConfig, metrics: Metrics) -> anyhow::Result<Self> {
        metrics.pool_max.set(count(config.pool_max));
        Ok(Self { pool: connect::pool(config)?, config: Arc::new(config.clone()), metrics })
    }

    /// Runs one statement that reads.
    async fn query(&self, name: &'static str, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let work = async |connection: &mut Object| {
            let statement = connection.prepare_cached(sql).await?;
            connection.query(&statement, params).await
        };
        self.observed(name, sql, async {
            let mut reconnected = false;
            loop {
                let mut connection = self.acquire().await?;
                match self.bounded(work(&mut connection)).await {
                    Ok(rows) => return Ok(rows),
                    Err(Failure::Timeout) => {
                        discard(connection);
                        return Err(StoreError::Timeout);
                    }
                    // A read can be repeated whatever happened to it.
                    Err(Failure::Driver(error)) => match remedy(&error) {
                        Remedy::Reconnect | Remedy::Discard if !reconnected => {
                            discard(connection);
                            reconnected = true;
                        }
                        Remedy::Fail | Remedy::Retry => return Err((&error).into()),
                        Remedy::Reconnect | Remedy::Discard => {
                            discard(connection);
                            return Err((&error).into());
                        }
                    },
                }
            }
        })
        .await
    }

    /// Runs a transaction, from BEGIN to COMMIT, as often as `work` has to be repeated. `sql` is for spans.
    async fn transaction<T>(
        &self,
        name: &'static str,
        sql: &'static str,
        work: impl for<'t> Fn(&'t Transaction<'t>) -> BoxFuture<'t, Result<T, tokio_postgres::Error>> + Send + Sync,
    ) -> Result<T, StoreError> {
        self.observed(name, sql, async {
            let mut attempt = 1;
            loop {
                let mut connection = self.acquire().await?;
                let mut committing = false;
                let outcome = self
                    .bounded(async {
                        let transaction = connection.transaction().await?;
                        let value = work(&transaction).await?;
                        committing = true;
                        transaction.commit().await?;
                        Ok(value)
                    })
                    .await;
                let error = match outcome {
                    Ok(value) => return Ok(value),
                    Err(Failure::Timeout) => {
                        discard(connection);
                        return Err(StoreError::Timeout);
                    }
                    Err(Failure::Driver(error)) => error,
                };
                let again = match remedy(&error) {
                    Remedy::Retry => attempt < ATTEMPTS,
                    // Once COMMIT was sent, only an answer tells what it did.
                    Remedy::Reconnect => attempt == 1 && (!committing || error.code().is_some()),
                    Remedy::Discard | Remedy::Fail => false,
                };
                if matches!(remedy(&error), Remedy::Reconnect | Remedy::Discard) {
                    discard(connection);
                }
                if !again {
                    return Err((&error).into());
                }
                attempt += 1;
            }
        })
        .await
    }

    /// A cheap round trip to the database.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.query("ping", "select 1", &[]).await.map(drop)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that takes a connection from the pool")]
    async fn acquire(&self) -> Result<Object, StoreError> {
        let started = Instant::now();
        let connection = self.pool.get().await;
        self.metrics.pool_wait.observe(started.elapsed().as_secs_f64());
        connection.map_err(|error| match error {
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => {
                self.metrics.pool_timeouts.inc();
                StoreError::PoolTimeout
            }
            PoolError::Backend(error) => StoreError::from(&error),
            other => StoreError::Unreachable(other.to_string()),
        })
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
        match timeout(self.config.command_timeout + GRACE, work).await {
            Ok(result) => result.map_err(Failure::Driver),
            Err(_) => Err(Failure::Timeout),
        }
    }

    async fn observed<T>(
        &self,
        name: &'static str,
        sql: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let span = tracing::info_span!(
            "database_query",
            otel.kind = "client",
            db.system.name = "postgresql",
            db.operation.name = name,
            db.query.text = sql,
            error.type = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let started = Instant::now();
        let result = work.instrument(span.clone()).await;
        let error_type = result.as_ref().err().map_or("", StoreError::kind);
        if !error_type.is_empty() {
            span.record("error.type", error_type);
            span.record("otel.status_code", "ERROR");
        }
        let labels = DatabaseLabels { db_system_name: "postgresql", db_operation_name: name, error_type };
        self.metrics.query_duration.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
        result
    }

    /// Keeps the minimum of connections open, closes idle ones above it, and shows both in the metrics.
    pub async fn maintain(&self) {
        let mut spare = self.pool.status().size.saturating_sub(self.config.pool_min);
        self.pool.retain(|_, usage| {
            let keep = usage.last_used() < IDLE || spare == 0;
            spare -= usize::from(!keep);
            keep
        });
        if self.pool.status().size < self.config.pool_min {
            let wanted = (0..self.config.pool_min).map(|_| self.acquire());
            // Held all at once, so that each is a connection of its own, and then given back.
            let _ = futures_util::future::join_all(wanted).await;
        }
        let pool = self.status();
        let idle = PoolLabels { state: "idle" };
        let used = PoolLabels { state: "used" };
        self.metrics.pool_connections.get_or_create(&idle).set(count(pool.idle));
        self.metrics.pool_connections.get_or_create(&used).set(count(pool.size.saturating_sub(pool.idle)));
        self.metrics.pool_pending.set(count(pool.waiting));
    }

    pub fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        // deadpool counts a connection as available only while nobody has it.
        PoolStatus { size: status.size, idle: status.available.min(status.size), waiting: status.waiting }
    }

    pub fn close(&self) {
        self.pool.close();
    }
}

#[derive(Clone, Copy, Debug)]
pub struct PoolStatus {
    pub size: usize,
    pub idle: usize,
    pub waiting: usize,
}

enum Failure {
    Timeout,
    Driver(tokio_postgres::Error),
}

/// Takes a connection out of the pool for good; its state isn't known.
fn discard(connection: Object) {
    drop(Object::take(connection));
}
