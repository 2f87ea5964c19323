//! Drops databases, from a thread of its own: the tests' runtimes come and go.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio_postgres::Client;

use crate::Postgres;
use crate::say::say;

/// The class of our advisory locks ("devk"); the second half is the owner's number.
const CLASS: i32 = 0x6465_766b;

/// Names the databases of this process and drops them.
#[derive(Debug)]
pub(crate) struct Janitor {
    owner: u32,
    requests: mpsc::UnboundedSender<(String, SyncSender<()>)>,
}

impl Janitor {
    /// The one of the shared server.
    pub(crate) async fn of(server: &'static Postgres) -> anyhow::Result<&'static Self> {
        static ONE: OnceCell<Janitor> = OnceCell::const_new();
        ONE.get_or_try_init(|| Self::start(server)).await
    }

    async fn start(server: &'static Postgres) -> anyhow::Result<Self> {
        let owner = rand::random::<u32>() >> 1;
        let (requests, receiver) = mpsc::unbounded_channel();
        let (ready, started) = oneshot::channel();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(run(server, owner, receiver, ready)),
                Err(error) => drop(ready.send(Err(error.into()))),
            }
        };
        std::thread::Builder::new().name("devkit-janitor".into()).spawn(work)?;
        started.await.context("the janitor of databases died")??;
        Ok(Self { owner, requests })
    }

    /// The name under which this process keeps that template; names are cut at 63 bytes by Postgres.
    pub(crate) fn name(&self, template: &str) -> String {
        let clean: String = template.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(32).collect();
        format!("devkit_{:08x}_{clean}", self.owner)
    }

    /// Drops a database and waits for it, so that it is gone even when the process ends next.
    pub(crate) fn drop_database(&self, name: &str) {
        let (done, wait) = sync_channel(1);
        if self.requests.send((name.to_owned(), done)).is_ok() && wait.recv_timeout(Duration::from_secs(10)).is_err() {
            say(format_args!("devkit: database {name} wasn't dropped within 10 s"));
        }
    }
}

async fn run(
    server: &Postgres,
    owner: u32,
    mut requests: mpsc::UnboundedReceiver<(String, SyncSender<()>)>,
    ready: oneshot::Sender<anyhow::Result<()>>,
) {
    // Kept open: its lock tells other processes on a given server that the databases of this one are in use.
    let mut client = match prepare(server, owner).await {
        Ok(client) => client,
        Err(error) => return drop(ready.send(Err(error))),
    };
    drop(ready.send(Ok(())));
    while let Some((name, done)) = requests.recv().await {
        if client.is_closed()
            && let Ok(again) = crate::postgres::connect(server.own_url()).await
        {
            client = again;
        }
        if let Err(error) = drop_one(&client, &name).await {
            say(format_args!("devkit: can't drop database {name}: {error}"));
        }
        let _ = done.send(());
    }
}

async fn prepare(server: &Postgres, owner: u32) -> anyhow::Result<Client> {
    let client = crate::postgres::connect(server.own_url()).await?;
    client.execute("select pg_advisory_lock($1, $2)", &[&CLASS, &owner.cast_signed()]).await?;
    if server.is_given() {
        sweep(&client, owner).await.context("can't sweep databases of earlier runs")?;
    }
    Ok(client)
}

/// Drops databases of processes that are gone; their connection, and with it their lock, ended with them.
async fn sweep(client: &Client, owner: u32) -> anyhow::Result<()> {
    let ours = "select datname from pg_database where datname ~ '^devkit_[0-9a-f]{8}_'";
    for row in client.query(ours, &[]).await? {
        let name: String = row.get(0);
        let Ok(other) = u32::from_str_radix(&name[7..15], 16) else { continue };
        if other == owner {
            continue;
        }
        let key = other.cast_signed();
        if client.query_one("select pg_try_advisory_lock($1, $2)", &[&CLASS, &key]).await?.get(0) {
            drop_one(client, &name).await?;
            client.execute("select pg_advisory_unlock($1, $2)", &[&CLASS, &key]).await?;
        }
    }
    Ok(())
}

async fn drop_one(client: &Client, name: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&format!(r#"drop database if exists "{name}" with (force)"#)).await
}
