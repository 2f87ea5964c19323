//! `cargo dev consistency`.

use std::ffi::OsString;
use std::process::{ExitCode, Stdio};

use super::service::{Service, exit_code};
use super::signals::Signals;
use super::workspace::{Workspace, cargo};

/// Runs the service's test `consistency` with these arguments, optimized when it is told how long.
pub(super) async fn run(args: &[OsString]) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let workspace = Workspace::find().await?;
    let long = args.iter().any(|arg| arg.to_string_lossy().starts_with("--for"));
    let mut checker = Service::start(&cargo(), |command| {
        command.args(["test", "--package", &workspace.package, "--test", "consistency"]);
        if long {
            command.args(["--profile", "fast"]);
        }
        let all: &[&str] = if args.is_empty() { &["--faults", "all"] } else { &[] };
        command.arg("--").args(all).args(args).current_dir(&workspace.root);
        command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    })?;
    tokio::select! {
        biased;
        () = signals.next() => {
            checker.stop(&mut signals).await;
            Ok(ExitCode::from(130))
        }
        status = checker.ended() => Ok(exit_code(status?)),
    }
}
