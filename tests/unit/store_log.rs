use std::collections::BTreeSet;
use std::time::Duration;

use devkit::{Database, wait_until};
use prometheus_client::registry::Registry;
use tiered_cache::{CacheKey, Change, ChangeLog, Changed, LogRead, LogReader, slot};
use tokio_postgres::{Client, NoTls};

use super::Log;
use super::read::{Head, Other};
use super::reader::RENEW;
use super::upkeep::{DROP_ANCHOR, PRUNE, REMOVE_FOREIGN};
use crate::config::reader::Values;
use crate::config::{Config, DatabaseConfig};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::migrations::migrate;

const LIMIT: Duration = Duration::from_secs(20);

fn config(url: &str) -> DatabaseConfig {
    Config::read(&Values::new([("DATABASE_URL".to_owned(), url.to_owned())])).unwrap().database
}

async fn database() -> Database {
    let migrated = async |url: String| migrate(&config(&url)).await.map(drop);
    Database::from_template("change_log", migrated).await.unwrap()
}

fn log(url: &str) -> Log {
    let metrics = Metrics::new(&mut Registry::default(), &Health::default());
    let log = Log::new(Store::new(&config(url), Duration::from_secs(5), metrics).unwrap());
    log.open();
    log
}

async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A log, a reader that has begun, and a session to write with.
struct Setup {
    database: Database,
    log: Log,
    reader: Box<dyn LogReader>,
    sql: Client,
}

impl Setup {
    async fn new() -> Self {
        let database = database().await;
        let log = log(&database.url());
        let mut reader = log.reader();
        let first = reader.next().await.unwrap();
        assert!(first.anew_since == Some(first.position) && first.identity != 0 && first.readers == 1, "{first:?}");
        let sql = session(&database.url()).await;
        Self { database, log, reader, sql }
    }

    async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    async fn read(&mut self) -> LogRead {
        self.reader.next().await.unwrap()
    }

    /// What the next turn brings, without a gap.
    async fn changes(&mut self) -> Vec<Change> {
        let read = self.read().await;
        assert_eq!(read.anew_since, None);
        read.changes
    }

    async fn hashes(&mut self) -> BTreeSet<u128> {
        self.changes().await.iter().filter_map(hash).collect()
    }

    /// The users among these that the next turn tells of.
    async fn users(&mut self, among: std::ops::Range<i64>) -> Vec<i64> {
        let told = self.hashes().await;
        among.filter(|id| told.contains(&user(*id))).collect()
    }

    /// Waits until no transaction runs, of any database here, that began before the last entry was written.
    async fn settle(&self) {
        let last = "select coalesce(max(xid) < pg_snapshot_xmin(pg_current_snapshot()), true) from cache_log";
        let settled = async || self.sql.query_one(last, &[]).await.unwrap().get(0);
        wait_until("all entries are of transactions that ended", LIMIT, settled).await.unwrap();
    }

    /// Removes all entries there are, as happens after minutes.
    async fn prune(&self) {
        self.settle().await;
        let below = "select pg_snapshot_xmin(pg_current_snapshot())::text";
        let below: String = self.sql.query_one(below, &[]).await.unwrap().get(0);
        let removed: i64 = self.sql.query_one(PRUNE, &[&below, &1_i64, &10_000_i64]).await.unwrap().get(0);
        assert!(removed > 0);
    }
}

/// Until some session of this database waits for a lock of this type.
async fn waiting(setup: &Setup, lock: &str) {
    let waits = "select exists (select from pg_stat_activity where datname = current_database() and wait_event = $1)";
    let waits = async || setup.sql.query_one(waits, &[&lock]).await.unwrap().get(0);
    wait_until("a session waits", LIMIT, waits).await.unwrap();
}

fn hash(change: &Change) -> Option<u128> {
    match change.what {
        Changed::Key(hash) => Some(hash),
        Changed::Kind(_) => None,
    }
}

/// As the handlers name it.
fn user(id: i64) -> u128 {
    CacheKey::builder("user").param("id", id).build().hash()
}

fn whole(kind: &str) -> Change {
    Change { what: Changed::Kind(slot(kind)), version: 0 }
}

fn insert(ids: &str) -> String {
    format!(
        "insert into users (id, name, email) select i, 'a', 'u' || i || '@example.com' from generate_series({ids}) i"
    )
}

const NONE: [i64; 0] = [];

#[tokio::test]
async fn a_change_is_told_once_with_its_version() {
    let mut setup = Setup::new().await;
    setup.run(&insert("1, 3")).await;
    setup.run("update users set name = 'b' where id = 2").await;
    let row = setup.sql.query_one("select version from users where id = 2", &[]).await.unwrap();
    let version = u64::try_from(row.get::<_, i64>(0)).unwrap();

    let read = setup.read().await;

    assert!(read.changes.contains(&Change { what: Changed::Key(user(2)), version }), "{read:?}");
    assert_eq!((read.changes.len(), read.newest), (4, version), "three inserted and one changed");
    assert_eq!(setup.changes().await, []);
}

#[tokio::test]
async fn what_commits_last_is_told_though_its_id_is_the_lowest() {
    let mut setup = Setup::new().await;
    let slow = session(&setup.database.url()).await;
    slow.batch_execute(&format!("begin; {}", insert("1, 1"))).await.unwrap();
    for id in 2..5 {
        setup.run(&insert(&format!("{id}, {id}"))).await;
        assert_eq!(setup.users(1..10).await, [id]);
    }
    for _ in 0..3 {
        assert_eq!(setup.users(1..10).await, NONE, "while it pauses");
    }

    slow.batch_execute("commit").await.unwrap();

    assert_eq!(setup.users(1..10).await, [1]);
    assert_eq!(setup.users(1..10).await, NONE, "once");
}

#[tokio::test]
async fn what_was_rolled_back_is_not_told_but_what_stayed_of_the_transaction_is() {
    let mut setup = Setup::new().await;
    setup.run(&format!("begin; {}; rollback", insert("1, 1"))).await;
    let undone = "rollback to savepoint one";
    setup.run(&format!("begin; {}; savepoint one; {}; {undone}; commit", insert("2, 2"), insert("3, 3"))).await;
    assert_eq!(setup.users(1..10).await, [2]);
}

#[tokio::test]
async fn positions_grow_with_whatever_is_seen() {
    let mut setup = Setup::new().await;
    let mut before = setup.read().await.position;
    for id in 1..5 {
        setup.run(&insert(&format!("{id}, {id}"))).await;
        let committed = setup.sql.query_one("select (pg_current_wal_insert_lsn() - '0/0')::bigint", &[]).await.unwrap();
        let position = setup.read().await.position;
        assert!(position > before && position > u64::try_from(committed.get::<_, i64>(0)).unwrap());
        before = position;
    }
}

#[tokio::test]
async fn a_statement_of_many_rows_is_told_as_its_kind() {
    let mut setup = Setup::new().await;
    setup.run(&insert("1, 1000")).await;
    assert_eq!(setup.users(1..2000).await.len(), 1000);
    setup.run(&insert("1001, 1001")).await;
    assert_eq!(setup.users(1..2000).await, [1001]);
    for many in ["update users set name = 'b'", "delete from users", &insert("1, 1001"), "truncate users"] {
        setup.run(many).await;
        assert_eq!(setup.changes().await, [whole("user")], "{many}");
    }
}

#[tokio::test]
async fn things_that_are_no_rows_are_told_by_their_hashes() {
    let mut setup = Setup::new().await;
    let keys = ["a", "b"].map(|id| CacheKey::builder("data").param("id", id).build());
    setup.log.append(&keys).await.unwrap();
    assert_eq!(setup.hashes().await, keys.iter().map(CacheKey::hash).collect());
}

#[tokio::test]
async fn a_reader_that_misses_what_was_removed_is_told_so() {
    let mut setup = Setup::new().await;
    setup.run(&insert("1, 5")).await;
    setup.prune().await;
    let read = setup.read().await;
    assert_eq!((read.anew_since, read.changes), (Some(read.position), Vec::new()));
    setup.run(&insert("6, 6")).await;
    assert_eq!(setup.users(1..10).await, [6], "then it goes on");
    setup.settle().await;
    assert_eq!(setup.changes().await, []);
    setup.prune().await;
    assert_eq!(setup.changes().await, [], "it had read what was removed");
}

#[tokio::test]
async fn what_could_not_be_read_at_once_is_not_read_at_all() {
    let mut setup = Setup::new().await;
    let entries = "insert into cache_log (kind, param, keys, versions) select 'user', 'id', array[i::text], array[0]";
    setup.run(&format!("{entries} from generate_series(1, 30001) i")).await;
    let read = setup.read().await;
    assert_eq!((read.anew_since, read.changes), (Some(read.position), Vec::new()));
    assert_eq!(setup.changes().await, []);
}

#[tokio::test]
async fn entries_that_nobody_can_read_make_their_kind_forgotten_and_end_nothing() {
    let mut setup = Setup::new().await;
    let broken = "insert into cache_log (kind, param, keys, versions) values";
    setup.run(&format!("{broken} ('user', 'id', '{{1,2}}', '{{1}}'), ('user', 'id', null, null)")).await;
    assert_eq!(setup.changes().await, [whole("user"), whole("user")]);
    setup.run("insert into cache_log (hashes) values ('\\x0102')").await;
    assert_eq!(setup.read().await.changes, []);
    setup.run("insert into cache_log (hashes) values ('\\x0102')").await;
    assert!(setup.read().await.anew_since.is_some());
    setup.run("alter table cache_log rename column keys to others").await;
    assert!(setup.reader.next().await.is_err());
    setup.run("alter table cache_log rename column others to keys").await;
    assert_eq!(setup.changes().await, []);
}

#[tokio::test]
async fn entries_and_marks_of_another_server_are_not_believed_and_go() {
    let mut setup = Setup::new().await;
    setup.run("insert into cache_log (xid, kind) values ('4000000000', 'user')").await;
    setup.run("update cache_log_state set pruned_to = '4000000000'").await;
    assert_eq!(setup.changes().await, []);
    setup.run(REMOVE_FOREIGN).await;
    let left = "select count(*) + (select count(*) from cache_log_state where pruned_to > '0') from cache_log
                where xid > '3999999999'";
    assert_eq!(setup.sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert_eq!(setup.changes().await, []);
}

#[tokio::test]
async fn a_new_reader_begins_where_another_was_and_is_told_what_came_since() {
    let setup = Setup::new().await;
    let (text, position, identity, triggers): (String, i64, i64, i64) = {
        let anchor = "select pg_current_snapshot()::text, (pg_current_wal_insert_lsn() - '0/0')::bigint,
                      cache_log_identity(), triggers from cache_log_triggers";
        let row = setup.sql.query_one(anchor, &[]).await.unwrap();
        (row.get(0), row.get(1), row.get(2), row.get(3))
    };
    setup.run(&insert("1, 2")).await;
    for (identity, triggers, since, changes) in [
        (identity + 1, triggers, None, 0),
        (identity, triggers + 1, None, 0),
        (identity, triggers, Some(position.cast_unsigned()), 2),
    ] {
        setup.run("update cache_log_state set anchored_at = '-infinity'").await;
        setup.sql.execute(DROP_ANCHOR, &[&text, &position, &identity, &triggers]).await.unwrap();
        let read = setup.log.reader().next().await.unwrap();
        assert_eq!(read.anew_since, since.or(Some(read.position)));
        assert_eq!(read.changes.len(), changes);
    }
}

#[tokio::test]
async fn a_log_that_went_back_is_another_one_for_everybody() {
    let mut setup = Setup::new().await;
    let before = setup.read().await;
    // As seen by one reader only; all others learn it from the table.
    let era: String = setup.sql.query_one("select era::text from cache_log_state", &[]).await.unwrap().get(0);
    setup.sql.execute(RENEW, &[&era]).await.unwrap();
    assert_eq!(setup.sql.execute(RENEW, &[&era]).await.unwrap(), 0, "once");
    let read = setup.read().await;
    assert!(read.anew_since.is_some() && read.identity != before.identity);
}

#[test]
fn ids_and_positions_below_those_seen_before_say_that_the_log_went_back() {
    let head = |identity, xmax: u64, position| Head {
        snapshot: format!("{xmax}:{xmax}:").parse().unwrap(),
        identity,
        era: String::new(),
        position,
        lost: false,
        readers: 1,
        newest: 0,
        unfollowed: None,
        triggers: None,
    };
    let before = head(1, 700, 5000);
    for (now, other) in [
        (head(1, 700, 5000), None),
        (head(1, 701, 5001), None),
        (head(1, 699, 5001), Some(Other::WentBack)),
        (head(1, 701, 4999), Some(Other::WentBack)),
        (head(2, 701, 5001), Some(Other::Log)),
    ] {
        assert_eq!(now.differs_from(&before), other, "{} {}", now.snapshot.text, now.position);
    }
}

/// Nothing is believed of before, and of the time meanwhile.
async fn forgets_everything(setup: &mut Setup, meanwhile: &str) {
    let read = setup.read().await;
    assert_eq!(read.anew_since, Some(read.position), "{meanwhile}");
}

#[tokio::test]
async fn while_triggers_are_off_or_gone_nothing_is_believed_and_following_again_mends_them() {
    for off in [
        "alter table users disable trigger all",
        "alter table users enable trigger all",
        "alter table users disable trigger cache_log_replay_user",
        "alter table users disable trigger users_version",
        "drop trigger cache_log_update_user on users",
        "drop trigger users_version on users",
        "create table heirs () inherits (users)",
        "alter table users rename to former_users; create table users (like former_users including all)",
    ] {
        let mut setup = Setup::new().await;
        setup.run(off).await;
        for _ in 0..2 {
            forgets_everything(&mut setup, off).await;
        }
        let mend = if off.contains("heirs") { "drop table heirs" } else { "select follow('users', 'user', 'id')" };
        setup.run(mend).await;
        forgets_everything(&mut setup, "it may have changed before that").await;
        setup.run(&insert("1, 1")).await;
        assert_eq!(setup.users(1..2).await, [1], "{off}");
        setup.run("update users set name = 'b'").await;
        assert_eq!(setup.users(1..2).await, [1], "{off}");
    }
}

#[tokio::test]
async fn triggers_that_were_off_between_two_reads_are_noticed_too() {
    let mut setup = Setup::new().await;
    setup.run("begin; alter table users disable trigger user").await;
    setup.run(&format!("{}; alter table users enable trigger user", insert("1, 1"))).await;
    setup.run("alter table users enable always trigger cache_log_truncate_user").await;
    setup.run("alter table users enable replica trigger cache_log_replay_user; commit").await;
    forgets_everything(&mut setup, "a load without triggers").await;
    assert_eq!(setup.changes().await, []);
}

#[tokio::test]
async fn a_table_that_is_gone_is_missed_by_nobody() {
    let mut setup = Setup::new().await;
    setup.run("drop table users").await;
    forgets_everything(&mut setup, "the drop").await;
    assert_eq!(setup.changes().await, []);
}

#[path = "store_log_readers.rs"]
mod readers;
#[path = "store_log_tables.rs"]
mod tables;
#[path = "store_log_writers.rs"]
mod writers;
