//! The whole life of the process: command line, configuration, telemetry, build, run, flush, exit code.

mod api;
mod app;
mod catalog;
mod cli;
mod config;
mod health;
mod lifecycle;
mod metrics;
mod server;
mod store;
#[cfg(test)]
#[path = "../tests/unit/mod.rs"]
mod unit;

use std::process::ExitCode;
use std::time::Duration;

use crate::app::App;
use crate::cli::Process;
use crate::config::reader::{ConfigError, Reader};
use crate::config::{Config, DatabaseConfig};
use crate::lifecycle::Signals;
use crate::server::{Outcome, Service};
use crate::store::connect::connect;
use crate::store::migrations::{self, Schema};
use anyhow::Context;
use telemetry::Telemetry;

/// The image's, else the package's.
pub const VERSION: &str = match option_env!("VERSION") {
    Some(version) if !version.is_empty() => version,
    _ => env!("CARGO_PKG_VERSION"),
};

/// The commit that this build was told.
pub const REVISION: &str = match option_env!("GIT_COMMIT") {
    Some(revision) => revision,
    None => "unknown",
};

/// The system's allocator keeps what a burst has touched; this one gives it back and is faster on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bad usage or configuration, also a schema that doesn't fit.
const EXIT_USAGE: u8 = 2;

/// After everything else has stopped, the last spans may take this long to leave…
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// …and this long when somebody is in a hurry.
const AT_ONCE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let (process, values) = cli::parse();
    // Fails only when somebody was faster, and nobody runs yet.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match process {
        Process::Serve => configured(Config::read(&values), serve),
        Process::Migrate { check } => {
            let mut reader = Reader::new(&values);
            let config = DatabaseConfig::read(&mut reader);
            configured(reader.finish(config), |config| migrate(&config, check))
        }
        Process::Healthcheck(path) => finish(health::probe::ask(&values, path).map(|()| ExitCode::SUCCESS)),
        Process::Openapi => print(&api::docs::document()),
    }
}

fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let exit = tokio::runtime::Runtime::new().context("no threads to run on").and_then(|runtime| {
        let exit = runtime.block_on(run(config));
        // Not waited for: what blocks a thread, such as the search for a name, would hold up the exit.
        runtime.shutdown_background();
        exit
    });
    // The log isn't there to say it, but what reads it expects its lines.
    exit.or_else(|error| {
        print(&serde_json::json!({"level": "ERROR", "target": "main", "message": format!("{error:#}")}).to_string());
        Ok(ExitCode::FAILURE)
    })
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let signals = Signals::listen().context("can't listen for signals")?;
    let telemetry = Telemetry::start(&config.telemetry, &catalog::CATALOG)?;
    let outcome = match App::assemble(config, telemetry.clone()).and_then(Service::build) {
        Ok(service) => service.run(signals).await,
        Err(error) => {
            tracing::error!(name: "start.failed", "{error:#}");
            Outcome::Failed
        }
    };
    telemetry.shutdown(if outcome == Outcome::Hurried { AT_ONCE } else { FLUSH_TIMEOUT }).await;
    Ok(match outcome {
        Outcome::Clean => ExitCode::SUCCESS,
        Outcome::Failed | Outcome::Hurried => ExitCode::FAILURE,
        Outcome::Refused => ExitCode::from(EXIT_USAGE),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn migrate(config: &DatabaseConfig, check: bool) -> anyhow::Result<ExitCode> {
    if check {
        let (client, _driver) = connect(config).await.context("can't connect to the database")?;
        let schema = migrations::check(&client).await?;
        print(&format!("schema: {schema:?}"));
        return Ok(if schema == Schema::Current { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let applied = migrations::migrate(config).await?;
    let nothing = applied.is_empty();
    Ok(print(&if nothing { "nothing to apply".to_owned() } else { format!("applied: {}", applied.join(", ")) }))
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn configured<C>(config: Result<C, ConfigError>, run: impl FnOnce(C) -> anyhow::Result<ExitCode>) -> ExitCode {
    match config {
        Ok(config) => finish(run(config)),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

#[expect(clippy::print_stdout, reason = "what the command was asked for")]
fn print(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "there is no log yet, or none at all for this command")]
fn complain(text: &str) {
    eprintln!("{}: {text}", env!("CARGO_PKG_NAME"));
}
