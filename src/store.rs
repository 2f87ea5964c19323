//! Postgres: one way to run a statement, one file per table.
//!
//! Every operation has a name, which is its label in metrics and spans. Waiting for a connection is measured apart
//! from the query, both are bounded, and only what certainly had no effect is tried again.

pub mod connect;
pub mod error;
pub mod log;
pub mod migrations;
pub mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool, PoolError, Status, Timeouts, Transaction};
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::Instrument;

use self::error::{Remedy, StoreError, chain, remedy};
use crate::config::DatabaseConfig;
use crate::metrics::{Metrics, count};

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

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Store {
    /// A store that connects when it is first used; its connections live on the current runtime.
    pub fn new(config: &DatabaseConfig, patience: Duration, metrics: Metrics) -> anyhow::Result<Self> {
        metrics.pool_max.set(count(config.pool_max));
        let (tls, runtime) = (connect::tls(config), Handle::current());
        let pool = connect::pool(config, tls.clone(), runtime.clone())?;
        Ok(Self { pool, config: Arc::new(config.clone()), patience, tls, runtime, metrics })
    }

    /// Runs one statement that reads.
    async fn query(&self, name: &'static str, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        self.observed(name, sql, async {
            let mut attempt = 0;
            loop {
                attempt += 1;
                let mut lease = self.acquire().await?;
                let work = async |connection: &mut Object| {
                    let statement = connection.prepare_cached(sql).await?;
                    connection.query(&statement, params).await
                };
                let outcome = self.bounded(&mut lease, work).await;
                // A read can be repeated whatever happened to it.
                if let Some(rows) = settle(lease, outcome, attempt, |_| true)? {
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
        // Outlives the work, which is given up after a while.
        let committing = AtomicBool::new(false);
        let outcome = self.observed(name, sql, async {
            let mut attempt = 0;
            loop {
                attempt += 1;
                committing.store(false, Ordering::Relaxed);
                let mut lease = self.acquire().await?;
                let whole = async |connection: &mut Object| {
                    let transaction = connection.transaction().await?;
                    let value = work(&transaction).await?;
                    committing.store(true, Ordering::Relaxed);
                    transaction.commit().await?;
                    Ok(value)
                };
                let outcome = self.bounded(&mut lease, whole).await;
                // Once COMMIT was sent, only an answer to it tells what it did; that the server stops is none.
                let harmless = |error: &Error| match error.code() {
                    Some(&SqlState::ADMIN_SHUTDOWN) => !committing.load(Ordering::Relaxed),
                    Some(_) => true,
                    None => !committing.load(Ordering::Relaxed) && error.is_closed(),
                };
                if let Some(value) = settle(lease, outcome, attempt, harmless)? {
                    return Ok(value);
                }
            }
        });
        match outcome.await {
            Err(error @ (StoreError::Timeout | StoreError::Unreachable(_))) if committing.load(Ordering::Relaxed) => {
                Err(StoreError::CommitUnknown(Box::new(error)))
            }
            outcome => outcome,
        }
    }

    /// A cheap round trip to the database.
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
            // Whatever the server's reason, the request is blameless and may be repeated.
            PoolError::Backend(error) => StoreError::Unreachable(chain(&error)),
            other => StoreError::Unreachable(other.to_string()),
        })?;
        Ok(Lease { store: self, connection: Some(connection), busy: false })
    }

    async fn bounded<T>(
        &self,
        lease: &mut Lease<'_>,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        let connection = lease.connection.as_mut()?;
        lease.busy = true;
        let outcome = timeout(self.config.command_timeout + GRACE, work(connection)).await.ok();
        lease.busy = outcome.is_none();
        outcome
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
        self.metrics.queried(name, error_type, started.elapsed());
        result
    }

    /// Keeps the minimum of connections open, closes idle ones above it, and shows both in the metrics.
    pub async fn maintain(&self) {
        let minimum = self.config.pool_min;
        let mut spare = self.pool.status().size.saturating_sub(minimum);
        self.pool.retain(|connection, usage| {
            let keep = !connection.is_closed() && (usage.last_used() < IDLE || spare == 0);
            spare = spare.saturating_sub(usize::from(!keep));
            keep
        });
        let pool = self.status();
        if pool.size < minimum {
            // Idle ones first: taken at once, so that the rest are made, and given back before those are there.
            let wanted = pool.available + minimum - pool.size;
            let at_once = Timeouts { wait: Some(Duration::ZERO), ..self.pool.timeouts() };
            let take = async |_| {
                let lease = self.pool.timeout_get(&at_once).await;
                yield_now().await;
                drop(lease);
            };
            futures_util::future::join_all((0..wanted).map(take)).await;
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
    lease: Lease<'_>,
    outcome: Option<Result<T, Error>>,
    attempt: u32,
    harmless: impl Fn(&Error) -> bool,
) -> Result<Option<T>, StoreError> {
    let error = match outcome {
        Some(Ok(value)) => return Ok(Some(value)),
        Some(Err(error)) => error,
        None => return Err(StoreError::Timeout),
    };
    let again = match remedy(&error) {
        Remedy::Fail => false,
        Remedy::Retry => attempt < ATTEMPTS,
        Remedy::Reconnect => {
            // What befell this connection has befallen the idle ones, too.
            lease.store.suspect(Instant::now());
            lease.discard();
            attempt == 1 && harmless(&error)
        }
    };
    if again { Ok(None) } else { Err((&error).into()) }
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
