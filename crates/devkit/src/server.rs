//! A server that tests can break: a process of ours, a container, or one that was given and isn't ours to break.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::container::Container;
use crate::guard::Guard;
use crate::port::Port;
use crate::process;

/// Starting takes 10 ms (Redis) to 200 ms (Postgres); the limit is for machines that are busy with a build.
const START: Duration = Duration::from_secs(60);

/// How to run a server's program.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    /// Its arguments, from the run's folder and the port.
    pub(crate) args: fn(&Path, u16) -> Vec<OsString>,
    /// Whether it takes connections, from the run's folder, its address and its process id: another server that took
    /// the port must not be mistaken for ours.
    pub(crate) ready: fn(&Path, SocketAddr, u32) -> bool,
    /// What ends it at once without leaving anything.
    pub(crate) signal: Signal,
}

#[derive(Debug)]
pub(crate) struct Private {
    recipe: Recipe,
    guard: Guard,
    port: Port,
}

#[derive(Debug)]
pub(crate) enum Server {
    Private(Arc<Mutex<Private>>),
    Container(Container),
    /// Its port.
    Given(u16),
}

impl Private {
    fn run(&mut self) -> anyhow::Result<()> {
        self.kill();
        let args = (self.recipe.args)(self.guard.folder(), self.port.number());
        let id = self.guard.start(&self.recipe.program, |command| {
            command.args(args);
        })?;
        let start = Instant::now();
        while !(self.recipe.ready)(self.guard.folder(), self.port.address(), id) {
            let running = self.guard.process().is_some_and(|process| matches!(process.try_wait(), Ok(None)));
            if !running || start.elapsed() > START {
                self.kill();
                bail!("{} didn't start:\n{}", self.recipe.program.display(), self.guard.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Kills the children first, so that no client hears a farewell; the parent alone can free Postgres's shared memory,
    /// so it gets its own signal, and KILL if that takes too long.
    fn kill(&mut self) {
        if let Some(id) = self.guard.id() {
            process::signal(id, Signal::STOP);
            for child in process::children(id) {
                process::signal(child, Signal::KILL);
            }
            process::signal(id, self.recipe.signal);
            process::signal(id, Signal::CONT);
        }
        if let Some(parent) = self.guard.process() {
            process::wait(parent, Duration::from_secs(10));
        }
        self.guard.ended();
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Starts the program on a free loopback port.
    pub(crate) fn start(guard: Guard, recipe: Recipe) -> anyhow::Result<Self> {
        let mut private = Private { recipe, guard, port: Port::reserve()? };
        for _ in 0..5 {
            match private.run() {
                Err(_) if private.guard.log().contains("already in use") => private.port = Port::reserve()?,
                done => return done.map(|()| Self::Private(Arc::new(Mutex::new(private)))),
            }
        }
        bail!("every port we tried was taken by someone else")
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Private(private) => lock(private).port.number(),
            Self::Container(container) => container.port(),
            Self::Given(port) => *port,
        }
    }

    /// Stops all its processes, where they are, or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        match self {
            Self::Private(private) => match lock(private).guard.id() {
                Some(id) if frozen => process::freeze(id),
                Some(id) => process::thaw(id),
                None => {}
            },
            Self::Container(container) => container.order(if frozen { "pause" } else { "unpause" })?,
            Self::Given(_) => return not_ours(),
        }
        Ok(())
    }

    pub(crate) async fn kill(&self) -> anyhow::Result<()> {
        match self {
            Self::Private(private) => {
                blocking(private, |private| {
                    private.kill();
                    Ok(())
                })
                .await
            }
            Self::Container(container) => container.order("kill"),
            Self::Given(_) => not_ours(),
        }
    }

    /// On the same port with the same data.
    pub(crate) async fn restart(&self) -> anyhow::Result<()> {
        match self {
            Self::Private(private) => blocking(private, Private::run).await,
            Self::Container(container) => container.order("restart"),
            Self::Given(_) => not_ours(),
        }
    }
}

fn lock(private: &Mutex<Private>) -> MutexGuard<'_, Private> {
    private.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking(
    private: &Arc<Mutex<Private>>,
    work: impl FnOnce(&mut Private) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let private = Arc::clone(private);
    tokio::task::spawn_blocking(move || work(&mut lock(&private))).await.context("a server's thread died")?
}

fn not_ours() -> anyhow::Result<()> {
    bail!("a given server isn't ours to stop: start a private one")
}
