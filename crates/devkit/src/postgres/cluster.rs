//! The processes and data of one private Postgres.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::USER;
use crate::account::Account;
use crate::guard::Guard;
use crate::port::Port;
use crate::process;

/// Fast: what is committed survives a kill of the server, not a crash of the machine (so `synchronous_commit` stays
/// on). No files outside of the data folder: no socket, shared memory as files in it.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[&str] = &[
    "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=500",
    "-c", "unix_socket_directories=", "-c", "dynamic_shared_memory_type=mmap",
];

/// Starting takes about 0.2 s; the limit is for machines that are busy with a build.
const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Cluster {
    binaries: PathBuf,
    guard: Guard,
    port: Port,
    password: String,
}

/// A random password: any user of the machine can reach the port, and a superuser can run programs.
pub(crate) fn password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Cluster {
    pub(crate) fn start(binaries: PathBuf, account: Option<&Account>) -> anyhow::Result<Self> {
        // QUIT ends Postgres at once, its children too, and frees its shared memory.
        let guard = Guard::new(account.cloned(), "QUIT", 15)?;
        let mut cluster = Self { binaries, guard, port: Port::reserve()?, password: password() };
        cluster.init(account)?;
        for _ in 0..5 {
            match cluster.run() {
                Err(_) if cluster.guard.log().contains("could not bind") => cluster.port = Port::reserve()?,
                done => return done.map(|()| cluster),
            }
        }
        bail!("every port we tried was taken by someone else")
    }

    fn init(&self, account: Option<&Account>) -> anyhow::Result<()> {
        let secret = self.guard.folder().join("password");
        fs::write(&secret, &self.password)?;
        if let Some(user) = account {
            user.own(&secret)?;
        }
        // C.UTF-8 sorts like C and knows letters beyond ASCII; not every system has it.
        for locale in ["C.UTF-8", "C"] {
            let mut command = self.guard.command(&self.binaries.join("initdb"))?;
            command.args(["--no-sync", "--encoding=UTF8", "--auth=password", "--username", USER]);
            command.arg("--locale").arg(locale).arg("--pwfile").arg(&secret).arg("--pgdata").arg(self.data());
            if command.status().context("can't run initdb")?.success() {
                fs::remove_file(&secret)?;
                return Ok(());
            }
        }
        bail!("initdb failed:\n{}", self.guard.log())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let (data, port) = (self.data(), self.port.number().to_string());
        let id = self.guard.start(&self.binaries.join("postgres"), |command| {
            command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port]).args(SETTINGS);
        })?;
        let start = Instant::now();
        // The file is the server's own word, so another server that took the port can't be mistaken for ours.
        while !ready(&data.join("postmaster.pid"), id) {
            let running = self.guard.process().is_some_and(|process| matches!(process.try_wait(), Ok(None)));
            if !running || start.elapsed() > START {
                self.kill();
                bail!("Postgres didn't start:\n{}", self.guard.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.guard.folder().join("data")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    pub(crate) fn freeze(&self) {
        if let Some(id) = self.guard.id() {
            process::freeze(id);
        }
    }

    pub(crate) fn thaw(&self) {
        if let Some(id) = self.guard.id() {
            process::thaw(id);
        }
    }

    /// Kills the children, so that no client hears a farewell; the parent gets QUIT, since it alone can free the
    /// shared memory, and KILL if that takes too long.
    pub(crate) fn kill(&mut self) {
        if let Some(id) = self.guard.id() {
            process::signal(id, Signal::STOP);
            for child in process::children(id) {
                process::signal(child, Signal::KILL);
            }
            process::signal(id, Signal::QUIT);
            process::signal(id, Signal::CONT);
        }
        if let Some(parent) = self.guard.process() {
            process::wait(parent, Duration::from_secs(10));
        }
        self.guard.ended();
    }

    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.run()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the server of that id has written that it takes connections (line 8).
fn ready(file: &Path, id: u32) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines();
    lines.next() == Some(&id.to_string()) && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}
