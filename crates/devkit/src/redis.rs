//! A private Redis.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::account::Account;
use crate::container::Container;
use crate::guard::Guard;
use crate::port::{Port, loopback};
use crate::process;
use crate::programs::find;
use crate::settings::{Source, allowed};

const IMAGE: &str = "redis:8-alpine";
/// Starting takes about 10 ms; the limit is for machines that are busy with a build.
const START: Duration = Duration::from_secs(30);

/// A Redis server of its own: empty at start, nothing kept on disk. It ends with the value, or with the process that
/// holds it, however that ends.
#[derive(Debug)]
pub struct Redis {
    place: Place,
    port: u16,
}

#[derive(Debug)]
enum Place {
    Private(Arc<Mutex<Server>>),
    Container(Container),
}

#[derive(Debug)]
struct Server {
    program: PathBuf,
    guard: Guard,
    port: Port,
}

impl Redis {
    /// Starts a server: from a binary on this machine, or in a container.
    ///
    /// # Errors
    /// When there is neither; the message says what to install.
    pub async fn start() -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(Self::start_blocking).await?.context("can't start a private Redis")
    }

    fn start_blocking() -> anyhow::Result<Self> {
        if let Some(program) = program() {
            let server = Server::start(program)?;
            let port = server.port.number();
            return Ok(Self { place: Place::Private(Arc::new(Mutex::new(server))), port });
        }
        if !allowed("REDIS", Source::Container) || !Container::possible() {
            bail!(
                "there is no redis-server on this machine: install it (Debian: apt-get install redis-server; Fedora: \
                 dnf install valkey; macOS: brew install redis), let `cargo dev test --yes` do so, or start Docker"
            );
        }
        let container = Container::start(IMAGE, 6379, &[], &["redis-server", "--save", "", "--appendonly", "no"])?;
        let port = container.port();
        let start = Instant::now();
        while ask(loopback(port)).is_none() {
            if start.elapsed() > START {
                bail!("Redis in a container doesn't answer");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { place: Place::Container(container), port })
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
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

    /// Stops the process with SIGSTOP: connections stay open and silent, new ones are taken by the kernel only.
    ///
    /// # Errors
    /// When the server runs in a container and Docker fails.
    pub fn freeze(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Private(server) => lock(server).signal(Signal::STOP),
            Place::Container(container) => container.order("pause")?,
        }
        Ok(())
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// When the server runs in a container and Docker fails.
    pub fn thaw(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Private(server) => lock(server).signal(Signal::CONT),
            Place::Container(container) => container.order("unpause")?,
        }
        Ok(())
    }

    /// Kills the server: every connection breaks, later ones are refused. Works on a frozen one too.
    ///
    /// # Errors
    /// When the server runs in a container and Docker fails.
    pub async fn stop(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Private(server) => {
                blocking(server, |server| {
                    server.guard.ended();
                    Ok(())
                })
                .await
            }
            Place::Container(container) => container.order("kill"),
        }
    }

    /// Starts the server again, on the same port and empty; kills it first if it runs.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Private(server) => blocking(server, Server::run).await,
            Place::Container(container) => container.order("start"),
        }
    }
}

/// The server's program; Valkey is the Redis of several distributions.
pub(crate) fn program() -> Option<PathBuf> {
    if !allowed("REDIS", Source::Binary) && !allowed("REDIS", Source::Download) {
        return None;
    }
    find("redis-server").or_else(|| find("valkey-server"))
}

impl Server {
    fn start(program: PathBuf) -> anyhow::Result<Self> {
        let guard = Guard::new(Account::other_than_root()?, "KILL", 1)?;
        let mut server = Self { program, guard, port: Port::reserve()? };
        for _ in 0..5 {
            match server.run() {
                Err(_) if server.guard.log().contains("Address already in use") => {
                    server.port = Port::reserve()?;
                }
                done => return done.map(|()| server),
            }
        }
        bail!("every port we tried was taken by someone else")
    }

    fn run(&mut self) -> anyhow::Result<()> {
        self.guard.ended();
        let port = self.port.number().to_string();
        let id = self.guard.start(&self.program, |command| {
            command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        })?;
        let start = Instant::now();
        // Comparing ids, so that another server that took the port can't be mistaken for ours.
        while ask(self.port.address()) != Some(id) {
            let running = self.guard.process().is_some_and(|process| matches!(process.try_wait(), Ok(None)));
            if !running || start.elapsed() > START {
                self.guard.ended();
                bail!("redis-server didn't start:\n{}", self.guard.log());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.guard.id() {
            process::signal(id, signal);
        }
    }
}

/// The process id of the Redis that answers there.
fn ask(address: SocketAddr) -> Option<u32> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(b"INFO server\r\nQUIT\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok())
}

fn lock(server: &Mutex<Server>) -> MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking(
    server: &Arc<Mutex<Server>>,
    work: impl FnOnce(&mut Server) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || work(&mut lock(&server))).await?
}
