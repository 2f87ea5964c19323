//! devkit against real servers, which these tests start themselves.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test, helpers included")]

mod database;
mod guardian;
mod load;
mod postgres;
mod proxy;
mod redis;
mod up;

use std::time::Duration;

/// For conditions that hold in milliseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The first column of the first row.
async fn ask(url: &str, sql: &str) -> anyhow::Result<String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let rows = client.simple_query(sql).await?;
    let row = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(row.unwrap_or_default().to_owned())
}
