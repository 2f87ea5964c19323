//! The database as somebody else sees it: other sessions, and what the service does there.

use devkit::wait_until;
use tokio_postgres::{Client, NoTls};

use super::LIMIT;

/// A bare session; it ends with the client.
pub async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A session of the test's own.
pub struct Sql(Client);

impl Sql {
    pub async fn connect(url: &str) -> Self {
        Self(session(url).await)
    }

    pub async fn run(&self, sql: &str) {
        self.0.batch_execute(sql).await.unwrap();
    }

    /// The first column of the first row, a number.
    pub async fn number(&self, sql: &str) -> i64 {
        self.0.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// The first column of the first row, a text.
    pub async fn text(&self, sql: &str) -> String {
        self.0.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Users 1 to `count`.
    pub async fn add_users(&self, count: i64) {
        let values = "i, 'User ' || i, 'user' || i || '@example.com'";
        self.run(&format!("insert into users (id, name, email) select {values} from generate_series(1, {count}) i"))
            .await;
    }

    /// Nobody else reads or writes users until [`Sql::unlock`].
    pub async fn lock_users(&self) {
        self.run("begin; lock table users in access exclusive mode").await;
    }

    pub async fn unlock(&self) {
        self.run("rollback").await;
    }

    /// How many statements wait for a lock in this database now.
    pub async fn waiting(&self) -> i64 {
        let waits = "wait_event_type = 'Lock' and datname = current_database()";
        self.number(&format!("select count(*) from pg_stat_activity where {waits}")).await
    }

    /// Waits until so many statements wait for a lock.
    pub async fn wait_for_waiting(&self, count: i64) {
        let condition = async || self.waiting().await == count;
        wait_until(&format!("{count} statements wait for a lock"), LIMIT, condition).await.unwrap();
    }
}
