//! The commands of `cargo dev`.

mod consistency;
mod groups;
mod install;
mod nightly;
mod sample;
mod service;
mod signals;
mod test;
mod up;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::test::Choice;
use crate::say::say;
use crate::settings::yes;
use crate::{Postgres, Redis};

/// Private servers for development and tests.
#[derive(Debug, Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Provision Postgres and Redis, migrate, load sample users, build and run the service until Ctrl-C.
    Up(Up),
    /// Run every test that Postgres and Redis suffice for; with --all the groups that need more, too.
    Test(Test),
    /// Break three replicas and their servers in every way and check that none answers older values than promised;
    /// `cargo dev consistency --help` tells how.
    #[command(disable_help_flag = true)]
    Consistency {
        /// Passed on: --for 60s, --faults all, --seed 7.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run the tests that take too long for every change, and show what they measured.
    Nightly {
        /// Every test of this package instead: `--package ops` deploys, breaks and diagnoses real containers.
        #[arg(long)]
        package: Option<String>,
        /// Only tests whose name contains one of these.
        filter: Vec<String>,
    },
    /// Start servers and wait to be killed; devkit's own tests kill it.
    #[command(hide = true)]
    Hold {
        /// Start a Redis too.
        #[arg(long)]
        redis: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Up {
    /// Port of the service; else the variable PORT, else 3000.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Build with optimizations.
    #[arg(long)]
    release: bool,
    /// Use servers on other machines, and install what is missing, without asking.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Test {
    /// Also the groups that need more than Postgres and Redis; fails when something for them is missing.
    #[arg(long)]
    all: bool,
    /// Use servers on other machines, and install what is missing, without asking.
    #[arg(long)]
    yes: bool,
    /// Passed on to `cargo test`.
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = async {
        match cli.command {
            Command::Up(up) => up::run(up.port, up.release, up.yes || yes()).await,
            Command::Test(Test { all, yes: told, args }) => {
                test::run(Choice { all, ..Choice::default() }, told || yes(), &args).await
            }
            Command::Consistency { args } => consistency::run(&args).await,
            Command::Nightly { package, filter } => nightly::run(yes(), package.as_deref(), &filter).await,
            Command::Hold { redis } => hold(redis).await,
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run)) {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One line on stderr with the ports (0: no Redis), then nothing until the process is killed.
async fn hold(with_redis: bool) -> anyhow::Result<ExitCode> {
    let postgres = Postgres::start().await?;
    let redis = if with_redis { Some(Redis::start().await?) } else { None };
    say(format_args!("holding {} {}", postgres.port(), redis.as_ref().map_or(0, Redis::port)));
    std::future::pending().await
}
