//! What readers do for the log in passing: remove old entries, and see that it is in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_util::task::AbortOnDropHandle;

use super::read::Head;
use crate::store::{Store, StoreError};

/// Any number that no other program uses for an advisory lock in this database.
const LOCK: i64 = 0x706c_696e_7469;
/// Most entries removed at once.
const BATCH: i64 = 10_000;
const PERIOD: Duration = Duration::from_secs(30);
/// Entries of transactions that had ended this long ago are removed: time enough for every reader that ever comes back.
const KEPT: Duration = Duration::from_secs(300);
/// What new readers begin with is this old: older than the last cleaning of a shared cache.
const ANCHORED: Duration = Duration::from_secs(5);
/// An entry this old means that nothing is removed any more: some transaction has been open since.
const OVERDUE: f64 = 900.0;

/// One at a time is enough. Nobody's clock counts: `$1` had ended when this process saw it, long enough ago.
pub const PRUNE: &str = "
with mine as materialized (select pg_try_advisory_xact_lock($2) as mine),
old as materialized (
    select ctid, xid from cache_log
    where (select mine from mine) and xid < $1::text::xid8 and xid >= (select pruned_to from cache_log_state)
    order by xid limit $3
),
gone as (delete from cache_log where ctid = any (array(select ctid from old))),
noted as (
    update cache_log_state set pruned_to = greatest(pruned_to, (select xid from old order by xid desc limit 1))
    where exists (select from old)
)
select count(*) from old";
/// What was restored from another server has ids that are still to come here, and would be news again and again.
pub const REMOVE_FOREIGN: &str = "
with foreigners as (delete from cache_log where xid >= pg_snapshot_xmax(pg_current_snapshot()))
update cache_log_state set pruned_to = '0' where pruned_to >= pg_snapshot_xmax(pg_current_snapshot())";
pub const DROP_OUT: &str = "delete from cache_readers where seen < now() - interval '30 seconds'";
pub const DROP_ANCHOR: &str = "
update cache_log_state set anchor_snapshot = $1::text::pg_snapshot, anchor_position = $2, anchor_identity = $3,
    anchor_triggers = $4, anchored_at = now()
where anchored_at < now() - interval '10 seconds'";
/// The number that rows which came or went with triggers off made wrong; one that changes meanwhile is left alone.
pub const RECOUNT: &str = "
update cache_log_state as state set readers = there
from (select readers as counted, (select count(*) from cache_readers) as there from cache_log_state) as seen
where state.readers = counted and there <> counted";
/// How the log is.
pub const SURVEY: &str = "
select pg_stat_get_live_tuples('cache_log'::regclass) as rows,
    (select extract(epoch from clock_timestamp() - written_at)::float8 from cache_log
        where xid >= (select pruned_to from cache_log_state) order by xid limit 1) as oldest";

#[derive(Default)]
pub struct Upkeep {
    /// When the next turn is due.
    due: Option<Instant>,
    /// What was seen each turn, the oldest first, until it is old enough.
    ended: Vec<(Instant, u64)>,
    /// What was seen lately, and some seconds before.
    seen: Option<(Instant, Head)>,
    anchor: Option<Head>,
    unfollowed: bool,
    /// It was said, and isn't said again while it lasts.
    overdue: Arc<AtomicBool>,
    running: Option<AbortOnDropHandle<()>>,
}

impl Upkeep {
    /// After each read; what there is to do is done beside.
    pub fn turn(&mut self, store: &Store, head: &Head) {
        let now = Instant::now();
        if let Some(tables) = &head.unfollowed
            && !self.unfollowed
        {
            let what =
                "triggers of the log of changes are off or gone, so that nothing is cached: follow the tables again";
            tracing::warn!(name: "change_log.unfollowed", tables, "{what}");
        }
        self.unfollowed = head.unfollowed.is_some();
        if self.seen.as_ref().is_some_and(|(_, seen)| seen.identity != head.identity) {
            (self.ended, self.seen, self.anchor) = (Vec::new(), None, None);
        }
        if self.seen.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= ANCHORED) {
            self.anchor = self.seen.replace((now, head.clone())).map(|(_, head)| head);
        }
        if self.due.is_some_and(|due| now < due) || self.running.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        // Replicas that start together don't go on together.
        self.due = Some(now + PERIOD.mul_f64(1.0 - rand::random::<f64>() / 3.0));
        self.ended.push((now, head.snapshot.xmin));
        let old = self.ended.iter().rposition(|(at, _)| now.duration_since(*at) >= KEPT);
        let below = old.and_then(|last| self.ended.drain(..=last).next_back()).map(|(_, xmin)| xmin);
        let work =
            Work { store: store.clone(), below, anchor: self.anchor.clone(), overdue: Arc::clone(&self.overdue) };
        self.running = Some(AbortOnDropHandle::new(store.runtime.spawn(async move {
            if let Err(error) = work.run().await {
                tracing::warn!(name: "change_log.neglected", %error, "the log of changes could not be looked after");
            }
        })));
    }
}

struct Work {
    store: Store,
    below: Option<u64>,
    anchor: Option<Head>,
    overdue: Arc<AtomicBool>,
}

impl Work {
    async fn run(&self) -> Result<(), StoreError> {
        let store = &self.store;
        // First, so that it is known whatever of the rest fails.
        let rows = store.query("log_upkeep", SURVEY, &[]).await?;
        rows.iter().for_each(|row| self.report(row));
        for task in [RECOUNT, DROP_OUT, REMOVE_FOREIGN] {
            store.query("log_upkeep", task, &[]).await?;
        }
        // What wasn't logged isn't told from an anchor on.
        if let Some(head) = self.anchor.as_ref().filter(|head| head.unfollowed.is_none()) {
            let Head { snapshot, position, identity, triggers, .. } = head;
            store.query("log_upkeep", DROP_ANCHOR, &[&snapshot.text, position, identity, triggers]).await?;
        }
        if let Some(below) = self.below {
            let below = below.to_string();
            let removed = async || store.query("log_upkeep", PRUNE, &[&below, &LOCK, &BATCH]).await;
            while removed().await?.first().is_some_and(|row| row.get::<_, i64>(0) == BATCH) {}
        }
        Ok(())
    }

    fn report(&self, row: &Row) {
        let seconds: f64 = row.get::<_, Option<f64>>("oldest").unwrap_or_default();
        self.store.metrics.log_rows.set(row.get("rows"));
        self.store.metrics.log_oldest.set(seconds);
        if !self.overdue.swap(seconds > OVERDUE, Ordering::Relaxed) && seconds > OVERDUE {
            let what = "old entries of the log of changes can't be removed: some transaction has been open since";
            tracing::warn!(name: "change_log.overdue", seconds, "{what}");
        }
    }
}
