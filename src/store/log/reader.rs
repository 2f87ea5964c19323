//! One replica's way through the log, on a connection of its own: no crowd at the pool may make it late.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;
use tiered_cache::{Change, LoadError, LogRead, LogReader};
use tokio::sync::{Notify, SetOnce};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row, Statement};
use tokio_util::task::AbortOnDropHandle;

use super::read::{Head, Other, READ, changes};
use super::upkeep::Upkeep;
use crate::config::DatabaseConfig;
use crate::store::connect::connect_listening;
use crate::store::{Store, StoreError};

/// Counts this replica among the readers. What a crash loses of it is repeated with the next connection.
pub const REGISTER: &str = "
with quick as materialized (select set_config('synchronous_commit', 'off', true))
insert into cache_readers (id) select $1::bigint from quick on conflict (id) do update set seen = now()";
pub const LEAVE: &str = "delete from cache_readers where id = $1";
pub const ANCHOR: &str = "select anchor_snapshot::text, anchor_position from cache_log_state, cache_log_triggers \
                          where anchor_identity = cache_log_identity() and anchor_triggers is not distinct from triggers";
/// A log that went back is another one since, for everybody.
pub const RENEW: &str = "update cache_log_state set era = gen_random_uuid() where era::text = $1";

/// From one read to the next, when nobody wakes.
const TURN: Duration = Duration::from_millis(500);
/// At least, however often somebody wakes.
const SHORTEST_TURN: Duration = Duration::from_millis(50);
/// What isn't answered in this time isn't worth waiting for.
const DEADLINE: Duration = Duration::from_secs(1);
/// Before another attempt to connect, after a connection broke and after one couldn't be made.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));
/// After so many reads that the server gave up a reader begins anew, as if it had lost its place: what can't be read in time
/// would be asked for again for ever.
const TOO_SLOW: u32 = 3;
/// Who hasn't registered again for 30 s counts no more.
const REGISTRATION: Duration = Duration::from_secs(5);

pub struct Reader {
    store: Store,
    /// Its own, for the server ends what takes longer than the deadline.
    config: DatabaseConfig,
    id: i64,
    opened: Arc<SetOnce<()>>,
    upkeep: Upkeep,
    link: Option<Link>,
    /// What the last answered read saw.
    before: Option<Head>,
    /// When the last attempt to read began.
    last: Option<Instant>,
    /// Before the next attempt to connect.
    pause: Duration,
    /// Reads in a row that the server gave up, since they took too long.
    too_slow: u32,
}

/// A connection, with what is made once for it.
struct Link {
    client: Client,
    _driver: AbortOnDropHandle<()>,
    /// Somebody wakes, or the connection broke.
    woken: Arc<Notify>,
    read: Statement,
    registered: Instant,
}

impl Reader {
    pub fn new(store: Store, opened: Arc<SetOnce<()>>) -> Self {
        let mut config = own(&store);
        // One plan for all reads, by the index: what statistics say of a table that is always being emptied is wrong.
        let options = config.url.get_options().unwrap_or_default();
        let plans = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off";
        config.url.options(format!("{options} {plans}"));
        let upkeep = Upkeep::default();
        let (id, pause) = (rand::random(), Duration::ZERO);
        Self { store, config, id, opened, upkeep, link: None, before: None, last: None, pause, too_slow: 0 }
    }

    async fn turn(&self) {
        let Some(last) = self.last else { return };
        match &self.link {
            Some(link) => {
                sleep_until(last + SHORTEST_TURN).await;
                // Late is as good as woken.
                let _ = timeout_at(last + TURN, link.woken.notified()).await;
            }
            None => sleep_until(last + self.pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await,
        }
    }

    async fn read(&mut self) -> Result<LogRead, StoreError> {
        let link = match self.link.take().filter(|link| !link.client.is_closed()) {
            Some(link) => link,
            None => match Link::connect(&self.config, self.id).await {
                // Said by poolers that pass on only the settings they know. Then each read is planned as usual.
                Err(error) if error.to_string().contains("unsupported startup parameter") => {
                    self.config = own(&self.store);
                    Link::connect(&self.config, self.id).await?
                }
                connected => connected?,
            },
        };
        let link = self.link.insert(link);
        if link.registered.elapsed() >= REGISTRATION {
            link.register(self.id).await?;
        }
        let anew = self.too_slow >= TOO_SLOW;
        loop {
            let before = self.before.as_ref().filter(|_| !anew);
            let anchor = if before.is_none() && !anew { link.anchor().await? } else { None };
            let since = before.map(|head| &*head.snapshot.text).or(anchor.as_ref().map(|anchor| &*anchor.snapshot));
            let sent_at = Instant::now();
            let rows = match timeout(DEADLINE, link.client.query(&link.read, &[&since])).await {
                Ok(Err(error)) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
                    self.too_slow += 1;
                    return Err(StoreError::Timeout);
                }
                Ok(rows) => rows.map_err(|error| StoreError::from(&error))?,
                Err(_) => return Err(StoreError::Timeout),
            };
            self.too_slow = 0;
            let head = head(&rows)?;
            if let Some(before) = before
                && let Some(other) = head.differs_from(before)
            {
                if other == Other::WentBack {
                    within(link.client.execute(RENEW, &[&before.era])).await?;
                }
                self.before = None;
                continue;
            }
            let lacks = head.lost || head.may_lack(before);
            let changes = if lacks { None } else { news(&rows, &self.store.metrics.log_unreadable) };
            let anew_since = match (&changes, before) {
                (Some(_), Some(_)) => None,
                (Some(_), None) => Some(anchor.map_or(head.position, |anchor| anchor.position)),
                (None, _) => Some(head.position),
            };
            self.upkeep.turn(&self.store, &head);
            let read = LogRead {
                sent_at,
                identity: head.identity.cast_unsigned(),
                anew_since: anew_since.map(i64::cast_unsigned),
                position: head.position.cast_unsigned(),
                changes: changes.unwrap_or_default(),
                readers: head.readers,
                newest: head.newest,
            };
            self.before = Some(head);
            return Ok(read);
        }
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<LogRead, LoadError> {
        self.opened.wait().await;
        self.turn().await;
        let started = Instant::now();
        self.last = Some(started);
        let outcome = self.read().await;
        let error_type = outcome.as_ref().err().map_or("", StoreError::kind);
        self.store.metrics.queried("log_read", error_type, started.elapsed());
        if outcome.is_err() {
            self.pause = if self.link.take().is_some() { PAUSE.0 } else { PAUSE.1 };
        }
        outcome.map_err(StoreError::shared)
    }

    async fn leave(&mut self) {
        if let Some(link) = self.link.take() {
            // In vain when the server is gone, and then not needed.
            drop(within(link.client.execute(LEAVE, &[&self.id])).await);
        }
    }
}

impl Link {
    async fn connect(config: &DatabaseConfig, id: i64) -> Result<Self, StoreError> {
        let woken = Arc::new(Notify::new());
        let (client, driver) = within(connect_listening(config, Arc::clone(&woken))).await?;
        // In vain behind a pooler of transactions; then each turn is a whole one.
        let _ = within(client.batch_execute("listen cache_log")).await;
        let read = within(client.prepare(READ)).await?;
        let mut link = Self { client, _driver: driver, woken, read, registered: Instant::now() };
        // Before anything is believed that others may not know to be read.
        link.register(id).await?;
        Ok(link)
    }

    async fn register(&mut self, id: i64) -> Result<(), StoreError> {
        within(self.client.execute(REGISTER, &[&id])).await?;
        self.registered = Instant::now();
        Ok(())
    }

    async fn anchor(&self) -> Result<Option<Anchor>, StoreError> {
        let row = within(self.client.query_opt(ANCHOR, &[])).await?;
        Ok(row.map(|row| Anchor { snapshot: row.get(0), position: row.get(1) }))
    }
}

/// What another reader saw some seconds ago.
struct Anchor {
    snapshot: String,
    position: i64,
}

/// The settings of a connection whose statements the server ends before the deadline.
fn own(store: &Store) -> DatabaseConfig {
    DatabaseConfig { command_timeout: DEADLINE * 9 / 10, ..(*store.config).clone() }
}

async fn within<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
    match timeout(DEADLINE, work).await {
        Ok(outcome) => outcome.map_err(|error| StoreError::from(&error)),
        Err(_) => Err(StoreError::Timeout),
    }
}

fn head(rows: &[Row]) -> Result<Head, StoreError> {
    let first = rows.first().ok_or_else(|| StoreError::Other("cache_log_state has no row".to_owned()))?;
    Head::of(first).map_err(|error| StoreError::Other(error.to_string()))
}

/// What the entries say; `None` when some can't be read at all.
fn news(rows: &[Row], unreadable: &Counter) -> Option<Vec<Change>> {
    let entries = rows.iter().map(|row| changes(row, unreadable));
    let Some(changes) = entries.collect::<Option<Vec<_>>>() else {
        unreadable.inc();
        return None;
    };
    Some(changes.into_iter().flatten().collect())
}
