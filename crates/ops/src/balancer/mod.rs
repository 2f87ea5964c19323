//! HAProxy, through its admin socket: states and weights of fixed slots, never servers added at run time.

mod client;
pub mod stat;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::deploy::parts::{Balancer, Change, Slot};
use crate::exit::{Exit, Failure, OrExit, Result};
use crate::state::replace;
use client::Socket;

/// Asks for all servers' states, and how the answer begins: with the format's version, and the columns.
const STATE: &str = "show servers state";
const STATE_BEGINS: &str = "1\n# ";

/// Where the balancer is.
#[derive(Debug, Clone, clap::Args)]
pub struct BalancerArgs {
    /// HAProxy's admin socket; its state file is kept in the same folder.
    #[arg(long, global = true, env = "OPS_BALANCER", default_value = "/run/haproxy/admin.sock")]
    pub balancer: PathBuf,
    /// The backend that has the slots.
    #[arg(long, global = true, env = "OPS_BACKEND", default_value = "service")]
    pub backend: String,
}

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    socket: Socket,
    backend: String,
}

impl Haproxy {
    /// Nothing is asked yet.
    pub fn new(args: &BalancerArgs, timeout: Duration) -> Self {
        Self { socket: Socket::new(&args.balancer, timeout), backend: args.backend.clone() }
    }

    fn line(&self, change: &Change) -> String {
        let server = |slot: &str| format!("{}/{slot}", self.backend);
        match change {
            Change::Weight(slot, weight) => format!("set server {} weight {weight}", server(slot)),
            Change::Ready(slot) => format!("set server {} state ready", server(slot)),
            Change::Drain(slot) => format!("set server {} state drain", server(slot)),
            Change::Maint(slot) => format!("set server {} state maint", server(slot)),
            Change::Cut(slot) => format!("shutdown sessions server {}", server(slot)),
        }
    }
}

#[async_trait]
impl Balancer for Haproxy {
    async fn slots(&self) -> Result<Vec<Slot>> {
        let backend = &self.backend;
        let state = self.socket.ask(&format!("show servers state {backend}")).await?;
        let stat = self.socket.ask(&format!("show stat {backend} 4 -1")).await?;
        let slots = stat::slots(&state, &stat);
        slots.ok_or_else(|| Failure::new(Exit::Precondition, format!("the balancer has no slots in backend {backend}")))
    }

    async fn apply(&self, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = changes.iter().map(|change| self.line(change)).collect();
        let lines = lines.join(";");
        // Asked along with the changes, it comes from the process that made them, and not from one that took its place.
        let answer = self.socket.ask(&format!("{lines};{STATE}")).await?;
        let Some((said, state)) = answer.find(STATE_BEGINS).map(|at| answer.split_at(at)) else {
            return Err(Failure::new(Exit::Unreachable, format!("the balancer doesn't say its state: {answer}")));
        };
        if !said.trim().is_empty() {
            return Err(Failure::new(Exit::Unreachable, format!("the balancer refused `{lines}`: {}", said.trim())));
        }
        // What it reads when it is reloaded or started again; without it every slot would be closed.
        let path = self.socket.path().with_file_name("servers.state");
        replace(&path, state.as_bytes()).or_exit(Exit::Precondition, format!("can't write {}", path.display()))
    }
}
