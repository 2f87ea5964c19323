//! The command line: global options, and one subcommand per module.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use containers::container::facts::Place;

use crate::balancer::{BalancerArgs, Haproxy};
use crate::deploy::parts::{Balancer, Slot};
use crate::deploy::{self, rollback};
use crate::engine::connect::EngineArgs;
use crate::engine::target::{LOOK, TargetArgs};
use crate::exit::{Exit, Failure, OrExit, Result};
use crate::output::Output;
use crate::state::State;
use crate::state::journal::{Phase, Strategy};
use crate::state::wish::Wish;
use crate::{history, status};

/// Deploys, diagnoses and watches the service's containers.
#[derive(Debug, Parser)]
#[command(name = "ops", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 2 usage, 3 precondition, 4 another deploy holds the lock, 5 new version never ready (no traffic \
moved), 6 gate failed (rolled back), 7 inconclusive (rolled back), 8 operator needed, 9 engine or balancer \
unreachable, 11 interrupted (consistent), 20 warnings found, 21 critical findings.";

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Write one JSON document instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
    /// How the engine is reached.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// What is deployed to.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How the balancer is reached.
    #[command(flatten)]
    pub balancer: BalancerArgs,
    /// Where journal, audit log and lock are kept.
    #[arg(long, global = true, env = "OPS_STATE_DIR", default_value = "/var/lib/ops")]
    pub state_dir: PathBuf,
    /// Keep the deploy's state in this file, for node-exporter's textfile collector.
    #[arg(long, global = true, env = "OPS_TEXTFILE", value_name = "FILE.prom")]
    pub textfile: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a new version behind the balancer, without a lost request.
    Deploy(Box<deploy::args::Args>),
    /// Go back to the version before.
    Rollback(rollback::Args),
    /// Show what runs where, with which weight.
    Status,
    /// Show every deploy with its outcome.
    History(history::Args),
    /// Keep a canary at its step.
    Pause,
    /// Let a paused canary go on.
    Resume,
    /// Undo the deploy under way.
    Abort,
    /// Finish or undo what was interrupted, and stop old replicas whose time is over; for a timer.
    Reconcile,
    /// Say whether the engine can be reached and which versions it speaks.
    Engine,
    /// Say what is wrong with containers, the worst first.
    Diagnose(containers::diagnose::Args),
    /// Say why a container did not start, or an image would not.
    Startup(containers::startup::Args),
    /// Watch a container: alerts as they happen, a report at the end.
    Monitor(containers::watch::monitor::Args),
    /// Say what a container uses memory for, and whether it leaks.
    Memory(containers::watch::memory::Args),
    /// Run tools beside a container, in its namespaces.
    Debug(containers::debug::Args),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.global.json);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.or_exit(Exit::Precondition, "no threads to run on").and_then(|runtime| {
        let outcome = runtime.block_on(run(&cli, &output));
        // Not waited for: what blocks a thread would hold up the exit.
        runtime.shutdown_timeout(Duration::from_millis(100));
        outcome
    });
    let exit = outcome.unwrap_or_else(|failure: Failure| {
        output.failure(&failure);
        failure.exit
    });
    exit.into()
}

async fn run(cli: &Cli, output: &Output) -> Result<Exit> {
    let global = &cli.global;
    match &cli.command {
        Command::Deploy(args) => deploy::run(args, global, output).await,
        Command::Rollback(args) => rollback::run(args, global, output).await,
        Command::Status => status::run(global, output).await,
        Command::History(args) => history::run(args, global, output),
        Command::Pause => wish(&State::new(&global.state_dir), Wish::Pause, output),
        Command::Resume => wish(&State::new(&global.state_dir), Wish::Go, output),
        Command::Abort => wish(&State::new(&global.state_dir), Wish::Abort, output),
        Command::Reconcile => deploy::reconcile(global, output).await,
        Command::Engine => crate::engine::report::run(&global.engine, output).await,
        Command::Diagnose(args) => containers::diagnose::run(args, &global.engine, &slots(global).await, output).await,
        Command::Startup(args) => containers::startup::run(args, &global.engine, output).await,
        Command::Monitor(args) => containers::watch::monitor::run(args, &global.engine, output).await,
        Command::Memory(args) => containers::watch::memory::run(args, &global.engine, output).await,
        Command::Debug(args) => containers::debug::run(args, &global.engine, output).await,
    }
}

/// Where the balancer sends requests. Without one there are no slots to know of, and nothing to wait for.
async fn slots(global: &Global) -> Vec<(IpAddr, Place)> {
    if !global.balancer.balancer.exists() {
        return Vec::new();
    }
    let slots = Haproxy::new(&global.balancer, global.engine.timeout.min(LOOK)).slots().await.unwrap_or_default();
    let place = |slot: Slot| (slot.address.ip(), Place { name: slot.name, weight: slot.weight, down: slot.down });
    slots.into_iter().map(place).collect()
}

/// Whoever deploys hears it within a second.
pub(crate) fn wish(state: &State, wish: Wish, output: &Output) -> Result<Exit> {
    let refused = |message: &str| Err(Failure::new(Exit::Precondition, message));
    let Some(deploy) = state.deploy()?.filter(|deploy| !deploy.phase.is_final()) else {
        return refused("no deploy is under way");
    };
    if wish == Wish::Pause && (deploy.strategy != Strategy::Canary || deploy.phase > Phase::Step) {
        return refused("only a canary that isn't promoted yet can be paused");
    }
    match deploy.phase {
        Phase::Draining if wish == Wish::Abort => return refused("the new version serves; use `ops rollback`"),
        Phase::NeedsOperator if wish == Wish::Abort => {
            return refused("undoing it failed; `ops reconcile` tries again");
        }
        Phase::RollingBack if wish == Wish::Abort => {
            output.progress("it is being undone already");
            return Ok(Exit::Done);
        }
        _ => {}
    }
    if state.wish(wish)? { Ok(Exit::Done) } else { refused("the deploy is being undone already") }
}
