//! The commands of `cargo dev`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::say::say;
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
    /// Start servers and wait to be killed; devkit's own tests kill it.
    #[command(hide = true)]
    Hold {
        /// Start a Redis too.
        #[arg(long)]
        redis: bool,
    },
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = async {
        match cli.command {
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
