//! The command line: global options, and one subcommand per module.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::engine::connect::EngineArgs;
use crate::exit::{Exit, Failure, OrExit, Result};
use crate::output::Output;

/// Deploys, diagnoses and watches the service's containers.
#[derive(Debug, Parser)]
#[command(name = "ops", version, after_help = EXIT_CODES)]
struct Cli {
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
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether the engine can be reached and which versions it speaks.
    Engine,
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
    outcome
        .unwrap_or_else(|failure: Failure| {
            output.failure(&failure);
            failure.exit
        })
        .into()
}

async fn run(cli: &Cli, output: &Output) -> Result<Exit> {
    match &cli.command {
        Command::Engine => crate::engine::report::run(&cli.global.engine, output).await,
    }
}
