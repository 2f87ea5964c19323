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
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::Instrument;

use self::error::{Remedy, StoreError, remedy};
use crate::config::DatabaseConfig;
use crate::telemetry::metrics::{DatabaseLabels, Metrics, PoolLabels, count};

/// How often a transaction that lost a race is tried.
const ATTEMPTS: u32 = 3;
/// Added to the server's own timeout, so that the server, which cleans up better, is first.
const GRACE: Duration = Duration::from_secs(1);
/// A server that doesn't take a cancellation within this time is gone.
const CANCEL: Duration = Duration::from_secs(1);
/// Connections beyond the minimum are closed when nobody has used them for this long.
const IDLE: Duration = Duration::from_secs(600);

/// The database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    config: Arc<DatabaseConfig>,
    /// Longest time for one operation, waiting for its connection included.
    patience: Duration,
    tls: MakeRustlsConnect,
    runtime: Handle,
    metrics: Metrics,
}

/// Parameters of a statement.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Store {
    /// A store that connects when it is first used; its connections live on the current runtime.
    ///
    /// # Errors
    /// When the pool can't be made from the settings.
    pub fn new(config: &DatabaseConfig, patience: Duration, metrics: Metrics) -> anyhow::Result<Self> {
        metrics.pool_max.set(count(config.pool_max));
        let (tls, runtime) = (connect::tls(), Handle::current());
        let pool = connect::pool(config, tls.clone(), runtime.clone())?;
        Ok(Self { pool, config: Arc::new(config.clone()), patience, tls, runtime, metrics })
    }

    /// Runs one statement that reads.
    async fn query(&self, name: &'static str, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        self.observed(name, sql, async {
            let mut reconnected = false;
            loop {
                let mut connection = self.acquire().await?;
                let work = async |connection: &mut Object| {
                    let statement = connection.prepare_cached(sql).await?;
                    connection.query(&statement, params).await
                };
                match self.bounded(&mut connection, work).await {
                    Ok(rows) => return Ok(rows),
                    Err(Failure::Timeout) => return Err(StoreError::Timeout),
                    // A read can be repeated whatever happened to it.
                    Err(Failure::Driver(error)) => match remedy(&error) {
                        Remedy::Reconnect | Remedy::Discard if !reconnected => {
                            connection.discard();
                            reconnected = true;
                        }
                        Remedy::Fail | Remedy::Retry => return Err((&error).into()),
                        Remedy::Reconnect | Remedy::Discard => {
                            connection.discard();
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
                    .bounded(&mut connection, async |connection: &mut Object| {
                        let transaction = connection.transaction().await?;
                        let value = work(&transaction).await?;
                        committing = true;
                        transaction.commit().await?;
                        Ok(value)
                    })
                    .await;
                let error = match outcome {
                    Ok(value) => return Ok(value),
                    Err(Failure::Timeout) => return Err(StoreError::Timeout),
                    Err(Failure::Driver(error)) => error,
                };
                let again = match remedy(&error) {
                    Remedy::Retry => attempt < ATTEMPTS,
                    // Once COMMIT was sent, only an answer tells what it did.
                    Remedy::Reconnect => attempt == 1 && (!committing || error.code().is_some()),
                    Remedy::Discard | Remedy::Fail => false,
                };
                if matches!(remedy(&error), Remedy::Reconnect | Remedy::Discard) {
                    connection.discard();
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
    ///
    /// # Errors
    /// When it fails.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.query("ping", "select 1", &[]).await.map(drop)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that takes a connection from the pool")]
    async fn acquire(&self) -> Result<Lease<'_>, StoreError> {
        let started = Instant::now();
        let connection = self.pool.get().await;
        self.metrics.pool_wait.observe(started.elapsed().as_secs_f64());
        let connection = connection.map_err(|error| match error {
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => {
                self.metrics.pool_timeouts.inc();
                StoreError::PoolTimeout
            }
            PoolError::Backend(error) => StoreError::from(&error),
            other => StoreError::Unreachable(other.to_string()),
        })?;
        Ok(Lease { store: self, connection: Some(connection), busy: false })
    }

    async fn bounded<T>(
        &self,
        lease: &mut Lease<'_>,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Failure> {
        let Some(connection) = &mut lease.connection else { return Err(Failure::Timeout) };
        lease.busy = true;
        let outcome = timeout(self.config.command_timeout + GRACE, work(connection)).await;
        lease.busy = outcome.is_err();
        outcome.map_err(|_| Failure::Timeout)?.map_err(Failure::Driver)
    }

    /// The server may have gone without a word: idle connections that nobody has used since are as suspect.
    fn suspect(&self, since: Instant) {
        self.pool.retain(|_, usage| usage.last_used() < since.elapsed());
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
        let result = timeout(self.patience, work.instrument(span.clone())).await.unwrap_or_else(|_| {
            self.suspect(started);
            Err(StoreError::Timeout)
        });
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
        self.pool.retain(|connection, usage| {
            let keep = !connection.is_closed() && (usage.last_used() < IDLE || spare == 0);
            spare = spare.saturating_sub(usize::from(!keep));
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

    /// Connections now.
    pub fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        // deadpool counts a connection as available only while nobody has it.
        PoolStatus { size: status.size, idle: status.available.min(status.size), waiting: status.waiting }
    }

    /// Closes all connections.
    pub fn close(&self) {
        self.pool.close();
    }
}

/// Connections of the pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolStatus {
    /// Open.
    pub size: usize,
    /// Open and unused.
    pub idle: usize,
    /// Callers that wait for one.
    pub waiting: usize,
}

enum Failure {
    Timeout,
    Driver(tokio_postgres::Error),
}

/// A connection on loan. One that is dropped in the middle of a statement doesn't go back to the pool, where the next
/// caller would wait for that statement, and the server is asked to end it.
struct Lease<'a> {
    store: &'a Store,
    connection: Option<Object>,
    busy: bool,
}

impl Lease<'_> {
    /// Takes the connection out of the pool for good; its state isn't known.
    fn discard(mut self) {
        drop(self.connection.take().map(Object::take));
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take_if(|_| self.busy) else { return };
        let (token, tls) = (connection.cancel_token(), self.store.tls.clone());
        drop(Object::take(connection));
        self.store.runtime.spawn(timeout(CANCEL, async move { token.cancel_query(tls).await }));
    }
}
