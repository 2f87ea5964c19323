//! A private Postgres, or one that was given by DATABASE_URL.

mod archive;
mod binaries;
mod cluster;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::container::Container;
use crate::given;
use crate::port::loopback;
use crate::say::say;
use crate::server::Server;
use crate::settings::{Source, allowed, var, yes};
use crate::versions;

const USER: &str = "postgres";

/// A Postgres server. A private one is fast and forgetful (no fsync), takes 500 connections, and ends with the value,
/// or with the process that holds it, however that ends.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    /// With any database in it; see [`Postgres::url`].
    url: String,
}

impl Postgres {
    /// Starts a private server: from a binary on this machine, a downloaded one, or in a container.
    pub async fn start() -> anyhow::Result<Self> {
        // Any user of the machine can reach the port, and a superuser can run programs.
        let password = format!("{:032x}", rand::random::<u128>());
        let secret = password.clone();
        let started = match binaries::get().await {
            Ok((bin, account)) => {
                let start = move || cluster::start(&bin, account.as_ref(), &secret);
                tokio::task::spawn_blocking(start).await?.context("can't start a private Postgres")?
            }
            Err(why) if !allowed("POSTGRES", Source::Container) || !Container::possible() => {
                return Err(why.context("no Postgres: install it (Debian: apt-get install postgresql) or start Docker"));
            }
            Err(why) => {
                say(format_args!("postgres: {why:#}; using a container"));
                tokio::task::spawn_blocking(move || in_container(&secret)).await??
            }
        };
        let url = format!("postgres://{USER}:{password}@127.0.0.1:{}/postgres", started.port());
        // A process of ours says itself when it is ready; a container doesn't.
        let answers = async {
            while connect(&url).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answers).await.context("Postgres started but doesn't answer")?;
        Ok(Self { server: started, url })
    }

    /// The server at DATABASE_URL, else a private one.
    pub(crate) async fn given_or_start(yes: bool) -> anyhow::Result<Self> {
        let Some(url) = given_url(yes)? else { return Self::start().await };
        let config: tokio_postgres::Config = url.parse()?;
        let port = config.get_ports().first().copied().unwrap_or(5432);
        Ok(Self { server: Server::Given(port), url })
    }

    /// The URL of a database on this server; it holds a password.
    pub fn url(&self, database: &str) -> String {
        // The URL was taken apart before, when it was checked or made.
        given::with_database(&self.url, database, None).unwrap_or_else(|_| self.url.clone())
    }

    /// The URL of a database as it is reached through another port of 127.0.0.1, such as a proxy's.
    pub fn url_through(&self, port: u16, database: &str) -> String {
        given::with_database(&self.url, database, Some(port)).unwrap_or_else(|_| self.url.clone())
    }

    /// The URL as it was given, with its database; that of the database `postgres` on a private server.
    pub(crate) fn own_url(&self) -> &str {
        &self.url
    }

    pub(crate) fn is_given(&self) -> bool {
        matches!(self.server, Server::Given(_))
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Where a [`FaultProxy`](crate::FaultProxy) in front of this server forwards to.
    pub fn address(&self) -> SocketAddr {
        loopback(self.port())
    }

    /// Stops every process of the server with SIGSTOP: connections stay open and silent. Fails on a given server.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.server.freeze(true)
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.server.freeze(false)
    }

    /// Kills the server at once: connections break, later ones are refused. Works on a frozen one; fails on a given one.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.server.kill().await
    }

    /// Starts the server again, on the same port with the same data; kills it first if it runs.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.server.restart().await
    }
}

fn in_container(password: &str) -> anyhow::Result<Server> {
    let secret = format!("POSTGRES_PASSWORD={password}");
    // The image's own settings of shared memory and sockets are right inside it.
    let command = ["postgres", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=500"];
    Ok(Server::Container(Container::start(versions::image("POSTGRES")?, 5432, &["--env", &secret], &command)?))
}

/// A connection, driven by a task of the current runtime until the client is dropped.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Client> {
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.context("can't connect to Postgres")?;
    tokio::spawn(connection);
    Ok(client)
}

/// The server that all tests of this process share: the one at DATABASE_URL, else a private one, started on first use.
pub async fn shared_postgres() -> anyhow::Result<&'static Postgres> {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED.get_or_try_init(|| Postgres::given_or_start(yes())).await
}

/// Makes sure before the tests that Postgres can be had, so that a download happens once and visibly.
pub(crate) async fn prepare(yes: bool) -> anyhow::Result<()> {
    match given_url(yes)? {
        Some(_) => Ok(()),
        None => match binaries::get().await {
            Err(why) if !allowed("POSTGRES", Source::Container) || !Container::possible() => Err(why),
            _ => Ok(()),
        },
    }
}

/// DATABASE_URL, if it may be used.
fn given_url(yes: bool) -> anyhow::Result<Option<String>> {
    let url = var("DATABASE_URL").filter(|_| allowed("POSTGRES", Source::Url));
    url.map(|url| given::check_postgres(&url, yes).map(|()| url)).transpose()
}
