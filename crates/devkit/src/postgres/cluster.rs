//! The data and settings of a private Postgres.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::USER;
use crate::account::Account;
use crate::guard::Guard;
use crate::server::{Recipe, Server};

/// Fast: what is committed survives a kill of the server, not a crash of the machine (so `synchronous_commit` stays
/// on). No files outside of the data folder: no socket, shared memory as files in it.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[&str] = &[
    "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=500",
    "-c", "unix_socket_directories=", "-c", "dynamic_shared_memory_type=mmap",
];

pub(crate) fn start(binaries: &Path, account: Option<&Account>, password: &str) -> anyhow::Result<Server> {
    // QUIT ends Postgres at once, its children too, and frees its shared memory.
    let guard = Guard::new(account.cloned(), "QUIT", 15)?;
    init(&guard, &binaries.join("initdb"), account, password)?;
    let program = binaries.join("postgres");
    let args = |folder: &Path, port: u16| {
        let mut args = vec!["-D".into(), folder.join("data").into(), "-h".into(), "127.0.0.1".into()];
        args.extend(["-p".into(), port.to_string().into()]);
        args.extend(SETTINGS.iter().map(Into::into));
        args
    };
    Server::start(guard, Recipe { program, args, ready, signal: Signal::QUIT })
}

fn init(guard: &Guard, initdb: &Path, account: Option<&Account>, password: &str) -> anyhow::Result<()> {
    let secret = guard.folder().join("password");
    fs::write(&secret, password)?;
    if let Some(user) = account {
        user.own(&secret)?;
    }
    // C.UTF-8 sorts like C and knows letters beyond ASCII; not every system has it.
    for locale in ["C.UTF-8", "C"] {
        let mut command = guard.command(initdb)?;
        command.args(["--no-sync", "--encoding=UTF8", "--auth=password", "--username", USER, "--locale", locale]);
        command.arg("--pwfile").arg(&secret).arg("--pgdata").arg(guard.folder().join("data"));
        if command.status().context("can't run initdb")?.success() {
            return fs::remove_file(&secret).context("can't remove the password's file");
        }
    }
    bail!("initdb failed:\n{}", guard.log())
}

/// Whether the server of that id has itself written that it takes connections (line 8).
fn ready(folder: &Path, _: SocketAddr, id: u32) -> bool {
    let text = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    lines.next() == Some(&id.to_string()) && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}
