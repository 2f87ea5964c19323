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

use deadpool_postgres::{Object, Pool, PoolError, Status, Transaction};
use futures_util::future::BoxFuture;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};
use tracing::Instrument;

use self::error::{Remedy, StoreError, remedy};
use crate::config::DatabaseConfig;
use crate::telemetry::metrics::{Metrics, count};

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

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];
type Outcome<T> = Result<Result<T, Error>, Elapsed>;

impl Store {
    /// A store that connects when it is first used.
    pub fn new(config: &DatabaseConfig, metrics: Metrics) -> anyhow::Result<Self> {
        metrics.pool_max.set(count(config.pool_max));
        Ok(Self { pool: connect::pool(config)?, config: Arc::new(config.clone()), metrics })
    }

    /// Runs one statement that reads.
    async fn query(&self, name: &'static str, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        self.observed(name, sql, async {
            let mut attempt = 0;
            loop {
                attempt += 1;
                let connection = self.acquire().await?;
                let work = async {
                    let statement = connection.prepare_cached(sql).await?;
                    connection.query(&statement, params).await
                };
                let outcome = self.bounded(work).await;
                // A read can be repeated whatever happened to it.
                if let Some(rows) = settle(connection, outcome, attempt, |_| true)? {
                    return Ok(rows);
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
        work: impl for<'t> Fn(&'t Transaction<'t>) -> BoxFuture<'t, Result<T, Error>> + Send + Sync,
    ) -> Result<T, StoreError> {
        self.observed(name, sql, async {
            let mut attempt = 0;
            loop {
                attempt += 1;
                let mut connection = self.acquire().await?;
                let mut committing = false;
                let whole = async {
                    let transaction = connection.transaction().await?;
                    let value = work(&transaction).await?;
                    committing = true;
                    transaction.commit().await?;
                    Ok(value)
                };
                let outcome = self.bounded(whole).await;
                // Once COMMIT was sent, only an answer tells what it did.
                let harmless = |error: &Error| error.code().is_some() || (!committing && error.is_closed());
                if let Some(value) = settle(connection, outcome, attempt, harmless)? {
                    return Ok(value);
                }
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

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Outcome<T> {
        timeout(self.config.command_timeout + GRACE, work).await
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
        let labels = [("db_system_name", "postgresql"), ("db_operation_name", name), ("error_type", error_type)];
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
        for (state, connections) in [("idle", pool.available), ("used", pool.size.saturating_sub(pool.available))] {
            self.metrics.pool_connections.get_or_create(&[("state", state)]).set(count(connections));
        }
        self.metrics.pool_pending.set(count(pool.waiting));
    }

    pub fn status(&self) -> Status {
        self.pool.status()
    }

    pub fn close(&self) {
        self.pool.close();
    }
}

/// What follows an attempt: its value, its error, or `None` for once more. A lost race is tried again, a lost
/// connection only once and when that does no harm; a connection whose state isn't known leaves the pool for good.
fn settle<T>(
    connection: Object,
    outcome: Outcome<T>,
    attempt: u32,
    harmless: impl Fn(&Error) -> bool,
) -> Result<Option<T>, StoreError> {
    let error = match outcome {
        Ok(Ok(value)) => return Ok(Some(value)),
        Ok(Err(error)) => error,
        Err(_) => {
            drop(Object::take(connection));
            return Err(StoreError::Timeout);
        }
    };
    let again = match remedy(&error) {
        Remedy::Fail => false,
        Remedy::Retry => attempt < ATTEMPTS,
        Remedy::Reconnect => {
            drop(Object::take(connection));
            attempt == 1 && harmless(&error)
        }
    };
    if again { Ok(None) } else { Err((&error).into()) }
}
