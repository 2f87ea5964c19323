//! A private Redis.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::account::Account;
use crate::container::Container;
use crate::guard::Guard;
use crate::port::loopback;
use crate::programs::find;
use crate::server::{Recipe, Server};
use crate::settings::{Source, allowed};
use crate::versions;

const SETTINGS: [&str; 4] = ["--save", "", "--appendonly", "no"];

/// A Redis server of its own: empty at start, nothing kept on disk. It ends with the value, or with the process that
/// holds it, however that ends.
#[derive(Debug)]
pub struct Redis {
    server: Server,
}

impl Redis {
    /// Starts a server: from a binary on this machine, or in a container. Without either the error says what to install.
    pub async fn start() -> anyhow::Result<Self> {
        let server = tokio::task::spawn_blocking(start).await?.context("can't start a private Redis")?;
        Ok(Self { server })
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Where a [`FaultProxy`](crate::FaultProxy) in front of this server forwards to.
    pub fn address(&self) -> SocketAddr {
        loopback(self.port())
    }

    /// Stops the process with SIGSTOP: connections stay open and silent, new ones are taken by the kernel only.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.server.freeze(true)
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.server.freeze(false)
    }

    /// Kills the server: every connection breaks, later ones are refused. Works on a frozen one too.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.server.kill().await
    }

    /// Starts the server again, on the same port and empty; kills it first if it runs.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        self.server.restart().await
    }
}

/// The server's program; Valkey is the Redis of several distributions.
pub(crate) fn program() -> Option<PathBuf> {
    if !allowed("REDIS", Source::Binary) && !allowed("REDIS", Source::Download) {
        return None;
    }
    find("redis-server").or_else(|| find("valkey-server"))
}

fn start() -> anyhow::Result<Server> {
    let Some(program) = program() else { return in_container() };
    let guard = Guard::new(Account::other_than_root()?, "KILL", 1)?;
    let args = |_: &_, port: u16| {
        let port = port.to_string();
        ["--port", &port, "--bind", "127.0.0.1"].into_iter().chain(SETTINGS).map(Into::into).collect()
    };
    let ready = |_: &_, address, id| ask(address) == Some(id);
    Server::start(guard, Recipe { program, args, ready, signal: Signal::KILL })
}

fn in_container() -> anyhow::Result<Server> {
    if !allowed("REDIS", Source::Container) || !Container::possible() {
        bail!(
            "there is no redis-server on this machine: install it (Debian: apt-get install redis-server; Fedora: \
             dnf install valkey; macOS: brew install redis), let `cargo dev test --yes` do so, or start Docker"
        );
    }
    let command = [&["redis-server"], &SETTINGS[..]].concat();
    let container = Container::start(versions::image("REDIS")?, 6379, &[], &command)?;
    let start = Instant::now();
    while ask(loopback(container.port())).is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            bail!("Redis in a container doesn't answer");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Server::Container(container))
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
