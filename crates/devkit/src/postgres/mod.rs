//! A private Postgres, or one that was given by DATABASE_URL.

mod archive;
mod binaries;
mod cluster;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use tokio::sync::OnceCell;

use self::cluster::Cluster;
use crate::container::Container;
use crate::port::loopback;
use crate::settings::{Source, allowed, var, yes};
use crate::{given, say::say};

/// The image of the last resort; the version is the one that production runs.
const IMAGE: &str = "postgres:17-alpine";
pub(crate) const USER: &str = "postgres";

/// A Postgres server. A private one is fast and forgetful (no fsync), takes 500 connections, and ends with the value,
/// or with the process that holds it, however that ends.
#[derive(Debug)]
pub struct Postgres {
    place: Place,
    /// With any database in it; see [`Postgres::url`].
    url: String,
    port: u16,
}

#[derive(Debug)]
enum Place {
    Private(Arc<Mutex<Cluster>>),
    Container(Container),
    Given,
}

impl Postgres {
    /// Starts a private server: from a binary on this machine, a downloaded one, or in a container.
    ///
    /// # Errors
    /// When none of these can be had; the message says what was tried.
    pub async fn start() -> anyhow::Result<Self> {
        let why = match binaries::get().await {
            Ok((binaries, account)) => {
                let started = tokio::task::spawn_blocking(move || Cluster::start(binaries, account.as_ref())).await?;
                let cluster = started.context("can't start a private Postgres")?;
                let (url, port) = (url(cluster.password(), cluster.port()), cluster.port());
                return Ok(Self { place: Place::Private(Arc::new(Mutex::new(cluster))), url, port });
            }
            Err(why) => why,
        };
        if !allowed("POSTGRES", Source::Container) || !Container::possible() {
            return Err(why.context("no Postgres: install it (Debian: apt-get install postgresql), or start Docker"));
        }
        say(format_args!("postgres: {why:#}; using a container"));
        Self::in_container().await
    }

    async fn in_container() -> anyhow::Result<Self> {
        let password = cluster::password();
        let secret = format!("POSTGRES_PASSWORD={password}");
        let start = move || {
            let command = [&["postgres"], cluster::SETTINGS].concat();
            Container::start(IMAGE, 5432, &["--env", &secret, "--shm-size", "256m"], &command)
        };
        let container = tokio::task::spawn_blocking(start).await??;
        let port = container.port();
        let postgres = Self { place: Place::Container(container), url: url(&password, port), port };
        crate::wait_until("Postgres in a container answers", std::time::Duration::from_secs(60), async || {
            postgres.connect("postgres").await.is_ok()
        })
        .await?;
        Ok(postgres)
    }

    /// The server at DATABASE_URL, else a private one.
    pub(crate) async fn given_or_start(yes: bool) -> anyhow::Result<Self> {
        let Some(url) = var("DATABASE_URL").filter(|_| allowed("POSTGRES", Source::Url)) else {
            return Self::start().await;
        };
        given::check_postgres(&url, yes)?;
        let config: tokio_postgres::Config = url.parse()?;
        let port = config.get_ports().first().copied().unwrap_or(5432);
        Ok(Self { place: Place::Given, url, port })
    }

    /// The URL of a database on this server; it holds a password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        // The URL was taken apart before, when it was checked or made.
        given::with_database(&self.url, database).unwrap_or_else(|_| self.url.clone())
    }

    /// The URL as it was given, with its database; that of the database `postgres` on a private server.
    pub(crate) fn own_url(&self) -> &str {
        &self.url
    }

    pub(crate) fn is_given(&self) -> bool {
        matches!(self.place, Place::Given)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where a [`FaultProxy`](crate::FaultProxy) in front of this server forwards to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// Stops every process of the server with SIGSTOP: connections stay open and silent.
    ///
    /// # Errors
    /// When the server isn't private.
    pub fn freeze(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Private(cluster) => lock(cluster).freeze(),
            Place::Container(container) => container.order("pause")?,
            Place::Given => return not_ours(),
        }
        Ok(())
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// When the server isn't private.
    pub fn thaw(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Private(cluster) => lock(cluster).thaw(),
            Place::Container(container) => container.order("unpause")?,
            Place::Given => return not_ours(),
        }
        Ok(())
    }

    /// Kills the server at once: every connection breaks, later ones are refused. Works on a frozen one too.
    ///
    /// # Errors
    /// When the server isn't private.
    pub async fn kill(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Private(cluster) => {
                blocking(cluster, |cluster| {
                    cluster.kill();
                    Ok(())
                })
                .await
            }
            Place::Container(container) => container.order("kill"),
            Place::Given => not_ours(),
        }
    }

    /// Starts the server again, on the same port with the same data; kills it first if it runs.
    ///
    /// # Errors
    /// When the server isn't private or doesn't come up.
    pub async fn restart(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Private(cluster) => blocking(cluster, Cluster::restart).await,
            Place::Container(container) => container.order("start"),
            Place::Given => not_ours(),
        }
    }

    /// A connection to a database of this server, driven by a task of the current runtime.
    pub(crate) async fn connect(&self, database: &str) -> anyhow::Result<tokio_postgres::Client> {
        connect(&self.url(database)).await
    }
}

/// A connection, driven by a task of the current runtime until the client is dropped.
pub(crate) async fn connect(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.context("can't connect to Postgres")?;
    tokio::spawn(connection);
    Ok(client)
}

/// The server that all tests of this process share: the one at DATABASE_URL, else a private one, started on first use.
///
/// # Errors
/// When there is no way to have one; later calls try again.
pub async fn shared_postgres() -> anyhow::Result<&'static Postgres> {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED.get_or_try_init(|| Postgres::given_or_start(yes())).await
}

/// Makes sure before the tests that Postgres can be had, so that a download happens once and visibly.
pub(crate) async fn prepare(yes: bool) -> anyhow::Result<()> {
    if let Some(url) = var("DATABASE_URL").filter(|_| allowed("POSTGRES", Source::Url)) {
        return given::check_postgres(&url, yes);
    }
    match binaries::get().await {
        Err(why) if !allowed("POSTGRES", Source::Container) => Err(why),
        // Docker may still help; a test that finds nothing says so.
        _ => Ok(()),
    }
}

fn url(password: &str, port: u16) -> String {
    format!("postgres://{USER}:{password}@127.0.0.1:{port}/postgres")
}

fn lock(cluster: &Mutex<Cluster>) -> MutexGuard<'_, Cluster> {
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking(
    cluster: &Arc<Mutex<Cluster>>,
    work: impl FnOnce(&mut Cluster) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let cluster = Arc::clone(cluster);
    tokio::task::spawn_blocking(move || work(&mut lock(&cluster))).await?
}

fn not_ours() -> anyhow::Result<()> {
    bail!("the server at DATABASE_URL isn't ours to stop: use Postgres::start()")
}
