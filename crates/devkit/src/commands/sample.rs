//! Users 1 to 100, so that there is something to ask for.

use anyhow::Context;
use tokio_postgres::error::SqlState;

use crate::say::say;

const USERS: &str = include_str!("../../sample_users.sql");

/// Loads them; a fork that has no such table (any more) goes without.
pub(super) async fn load(url: &str) -> anyhow::Result<()> {
    let client = crate::postgres::connect(url).await?;
    match client.batch_execute(USERS).await {
        Err(error) if [Some(&SqlState::UNDEFINED_TABLE), Some(&SqlState::UNDEFINED_COLUMN)].contains(&error.code()) => {
            say(format_args!("sample users: not loaded, since the schema has no place for them ({error})"));
            Ok(())
        }
        loaded => loaded.context("can't load the sample users"),
    }
}
