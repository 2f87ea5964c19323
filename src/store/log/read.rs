//! One read of the log: its SQL, and what its rows say.

use std::error::Error;
use std::str::FromStr;

use prometheus_client::metrics::counter::Counter;
use tiered_cache::{CacheKey, Change, Changed, slot};
use tokio_postgres::Row;

/// What was committed since the snapshot `$1` was taken: transactions that came later, and those that it saw in
/// progress. Ids that are still to come belong to entries of another server, restored here.
///
/// Positions of the write-ahead log tell who saw more only if it moves between that somebody sees a change and says his
/// position: a commit may be long in the log before it is visible, as with synchronous replication. So whoever has seen
/// something writes there first.
///
/// What is compressed is unpacked, to know its length, only if there isn't too much of it even so.
pub const READ: &str = "
with change as materialized (
    (select kind, param, keys, versions, hashes from cache_log
        where xid >= pg_snapshot_xmax($1::text::pg_snapshot) and xid < pg_snapshot_xmax(pg_current_snapshot())
        order by xid limit 30001)
    union all
    (select kind, param, keys, versions, hashes from cache_log
        where xid = any (array(select pg_snapshot_xip($1::text::pg_snapshot))) order by xid limit 30001)
)
select one.*, change.*
from (
    select pg_current_snapshot()::text as snapshot, cache_log_identity() as identity, era::text,
        ((case when $1 is null or exists (select from change) then pg_logical_emit_message(false, 'cache_log', '')
            else pg_current_wal_insert_lsn() end) - '0/0')::bigint as position,
        pruned_to >= pg_snapshot_xmin($1::text::pg_snapshot) and pruned_to < pg_snapshot_xmax(pg_current_snapshot())
            as pruned,
        (select count(*) > 30000 or sum(coalesce(pg_column_size(keys), pg_column_size(hashes), 0)) > 4000000 from change)
            or (select sum(octet_length(array_to_string(keys, ''))) > 4000000 from change) as too_much,
        readers, (select last_value from row_version) as newest, unfollowed, triggers
    from cache_log_state, cache_log_triggers
) as one left join change on too_much is not true";

/// The part that each row repeats.
#[derive(Clone)]
pub struct Head {
    pub snapshot: Snapshot,
    pub identity: i64,
    pub era: String,
    pub position: i64,
    /// Entries that weren't read are gone, or too many to read.
    pub lost: bool,
    pub readers: usize,
    pub newest: u64,
    /// Tables whose changes may not be in the log.
    pub unfollowed: Option<String>,
    /// Changes with the triggers that write the log.
    pub triggers: Option<i64>,
}

/// What follows something else than what was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    Log,
    /// The same by its name, but some of what was seen is gone.
    WentBack,
}

/// As Postgres writes it: `xmin:xmax:those in progress`.
#[derive(Clone)]
pub struct Snapshot {
    pub text: String,
    /// All before this one have ended.
    pub xmin: u64,
    /// This one and all after it had not begun.
    pub xmax: u64,
}

impl FromStr for Snapshot {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':').map(str::parse);
        match (parts.next(), parts.next()) {
            (Some(Ok(xmin)), Some(Ok(xmax))) => Ok(Self { text: text.to_owned(), xmin, xmax }),
            _ => Err("no snapshot"),
        }
    }
}

impl Head {
    pub fn of(row: &Row) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let flag = |name| row.try_get::<_, Option<bool>>(name).map(Option::unwrap_or_default);
        Ok(Self {
            snapshot: row.try_get::<_, &str>("snapshot")?.parse()?,
            identity: row.try_get("identity")?,
            era: row.try_get("era")?,
            position: row.try_get("position")?,
            lost: flag("pruned")? || flag("too_much")?,
            readers: usize::try_from(row.try_get::<_, i64>("readers")?)?,
            newest: version(row.try_get("newest")?),
            unfollowed: row.try_get("unfollowed")?,
            triggers: row.try_get("triggers")?,
        })
    }

    /// Whether something may have changed since that isn't in the log.
    pub fn may_lack(&self, before: Option<&Self>) -> bool {
        let off_before = |before: &Self| before.unfollowed.is_some() || before.triggers != self.triggers;
        self.unfollowed.is_some() || before.is_some_and(off_before)
    }

    /// Why what is new can't be told by what was seen before; `None` when it can.
    pub fn differs_from(&self, before: &Self) -> Option<Other> {
        if self.identity != before.identity {
            return Some(Other::Log);
        }
        let went_back = self.snapshot.xmax < before.snapshot.xmax || self.position < before.position;
        went_back.then_some(Other::WentBack)
    }
}

/// What an entry says; `None` when nobody can tell what it is about.
pub fn changes(row: &Row, unreadable: &Counter) -> Option<Vec<Change>> {
    let (hashes, kind): (Option<&[u8]>, Option<&str>) = (row.try_get("hashes").ok()?, row.try_get("kind").ok()?);
    match (hashes, kind) {
        // Of a turn that brought nothing.
        (None, None) => Some(Vec::new()),
        (Some(hashes), _) => hashed(hashes),
        (None, Some(kind)) => Some(named(row, kind).unwrap_or_else(|| {
            unreadable.inc();
            vec![Change { what: Changed::Kind(slot(kind)), version: 0 }]
        })),
    }
}

fn hashed(hashes: &[u8]) -> Option<Vec<Change>> {
    let (hashes, rest) = hashes.as_chunks();
    let change = |hash: &[u8; 16]| Change { what: Changed::Key(u128::from_be_bytes(*hash)), version: 0 };
    rest.is_empty().then(|| hashes.iter().map(change).collect())
}

/// `None` where names can't be read: any of the kind may be meant.
fn named(row: &Row, kind: &str) -> Option<Vec<Change>> {
    let param: Option<&str> = row.try_get("param").ok()?;
    let Some(param) = param else { return Some(vec![Change { what: Changed::Kind(slot(kind)), version: 0 }]) };
    let keys: Vec<Option<&str>> = row.try_get("keys").ok()?;
    let versions: Vec<i64> = row.try_get("versions").ok()?;
    // Nothing is cached under the name of no key.
    let change = |(key, since): (Option<&str>, &i64)| {
        let key = CacheKey::builder(kind).param(param, key?).build();
        Some(Change { what: Changed::Key(key.hash()), version: version(*since) })
    };
    (keys.len() == versions.len()).then(|| keys.into_iter().zip(&versions).filter_map(change).collect())
}

fn version(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
