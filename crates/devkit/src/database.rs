//! A database of its own for each test.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::janitor::Janitor;
use crate::{Postgres, shared_postgres};

/// A database on the [shared server](shared_postgres), dropped with the value.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: &'static Postgres,
    janitor: &'static Janitor,
}

/// The templates of this process, each made once.
static TEMPLATES: LazyLock<Mutex<HashMap<String, Arc<OnceCell<()>>>>> = LazyLock::new(Mutex::default);

impl Database {
    /// A copy of the template. Its first user in this process makes the template and calls `migrate` with its URL;
    /// those that come meanwhile wait.
    pub async fn from_template<F, Fut>(template: &str, migrate: F) -> anyhow::Result<Self>
    where
        F: FnOnce(String) -> Fut,
        Fut: Future<Output = anyhow::Result<()>>,
    {
        let server = shared_postgres().await?;
        let janitor = Janitor::of(server).await?;
        let original = janitor.name(template);
        let cell = {
            let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(templates.entry(original.clone()).or_default())
        };
        cell.get_or_try_init(|| make_template(server, &original, migrate)).await?;

        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("{original}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = crate::postgres::connect(server.own_url()).await?;
        // Made before the statement runs, so that a caller who gives up meanwhile leaves nothing.
        let database = Self { name, server, janitor };
        copy(&admin, &original, &database.name).await?;
        Ok(database)
    }

    /// The database's URL.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// The URL of the same database behind another port of 127.0.0.1, such as a proxy's.
    pub fn url_through(&self, port: u16) -> String {
        self.server.url_through(port, &self.name)
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.janitor.drop_database(&self.name);
    }
}

async fn make_template<F, Fut>(server: &Postgres, name: &str, migrate: F) -> anyhow::Result<()>
where
    F: FnOnce(String) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let admin = crate::postgres::connect(server.own_url()).await?;
    // One that failed before may be left.
    admin.batch_execute(&format!(r#"drop database if exists "{name}" with (force)"#)).await?;
    copy(&admin, "template1", name).await?;
    migrate(server.url(name)).await.with_context(|| format!("can't migrate the template {name}"))?;
    // Nobody may be connected to a template while it is copied, and a migration's pool closes in its own time.
    admin.batch_execute(&format!(r#"alter database "{name}" with allow_connections false"#)).await?;
    let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
    Ok(admin.batch_execute(&end).await?)
}

/// Copying files takes 45 ms where the default of Postgres 15, copying through the log, takes 350 ms.
async fn copy(admin: &Client, original: &str, name: &str) -> anyhow::Result<()> {
    let version: i32 = admin.query_one("select current_setting('server_version_num')::int", &[]).await?.get(0);
    let strategy = if version >= 150_000 { "strategy file_copy" } else { "" };
    let statement = format!(r#"create database "{name}" template "{original}" {strategy}"#);
    let start = Instant::now();
    loop {
        match admin.batch_execute(&statement).await {
            // The connections just ended may need a moment to go.
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) && start.elapsed().as_secs() < 10 => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            made => return made.with_context(|| format!("can't copy the database {original}")),
        }
    }
}
