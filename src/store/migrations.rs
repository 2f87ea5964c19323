//! The schema: applied by one process at a time, checked by all.

use anyhow::Context;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::connect;
use crate::config::DatabaseConfig;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Any number that no other program uses for an advisory lock in this database.
const LOCK: i64 = 0x706c_696e_7468;
/// A migration whose name has this in it takes something away that older binaries need.
const CONTRACT: &str = "contract";

/// How the database's schema stands to this binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    Current,
    /// Migrations are missing.
    Behind(Vec<String>),
    /// A later binary has removed what this one needs.
    TooNew(String),
}

/// Applies what is missing; returns the names. Safe when many processes start at once.
pub async fn migrate(config: &DatabaseConfig) -> anyhow::Result<Vec<String>> {
    // refinery takes no lock, and works on a client of its own. The lock belongs to a transaction, since through a
    // pooler such as PgBouncer one that belongs to a session would never be released.
    let (mut guard, _driver) = connect(config).await.context("can't connect to the database")?;
    let lock = guard.transaction().await.context("can't begin a transaction")?;
    lock.batch_execute("set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0").await?;
    lock.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await.context("can't take the migration lock")?;
    let (mut client, _other_driver) = connect(config).await.context("can't connect to the database")?;
    // A migration takes as long as it takes.
    client.batch_execute("set statement_timeout = 0").await?;
    let runner = embedded::migrations::runner().set_abort_missing(false);
    let report = runner.run_async(&mut client).await.context("a migration failed")?;
    lock.commit().await.context("can't release the migration lock")?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// Compares the database with what this binary brings.
pub async fn check(client: &Client) -> Result<Schema, tokio_postgres::Error> {
    let applied = match client.query("select version, name from refinery_schema_history", &[]).await {
        Ok(rows) => rows.iter().map(|row| (i64::from(row.get::<_, i32>(0)), row.get(1))).collect(),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Vec::new(),
        Err(error) => return Err(error),
    };
    let known = embedded::migrations::runner();
    let known = known.get_migrations().iter();
    let known: Vec<_> = known.map(|one| (i64::from(one.version()), one.name().to_owned())).collect();
    Ok(compare(&known, &applied))
}

/// A schema that is ahead is accepted, so that a rollback works, unless it has taken something away.
fn compare(known: &[(i64, String)], applied: &[(i64, String)]) -> Schema {
    let has = |list: &[(i64, String)], version: i64| list.iter().any(|(one, _)| *one == version);
    let missing = known.iter().filter(|(version, _)| !has(applied, *version));
    let missing: Vec<String> = missing.map(|(version, name)| format!("V{version}__{name}")).collect();
    let removed = applied.iter().find(|(version, name)| !has(known, *version) && name.contains(CONTRACT));
    match (missing.is_empty(), removed) {
        (false, _) => Schema::Behind(missing),
        (true, Some((version, name))) => Schema::TooNew(format!("V{version}__{name}")),
        (true, None) => Schema::Current,
    }
}
