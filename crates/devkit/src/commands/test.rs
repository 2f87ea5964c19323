//! `cargo dev test`.

use std::ffi::OsString;
use std::process::{ExitCode, Stdio};

use super::groups::{GROUPS, missing};
use super::install;
use super::service::{Service, exit_code};
use super::signals::Signals;
use super::workspace::{Workspace, cargo};
use crate::say::say;
use crate::settings::YES;

/// Provisions, runs `cargo test` and passes its exit code on.
pub(super) async fn run(all: bool, yes: bool, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let prepare = async {
        let workspace = Workspace::find().await?;
        let gone = if all { missing() } else { Vec::new() };
        for line in &gone {
            say(format_args!("missing: {line}"));
        }
        if !gone.is_empty() {
            return Ok(None);
        }
        if !install::redis(yes).await? {
            say("redis: the tests that need one will fail");
        }
        crate::postgres::prepare(yes).await?;
        anyhow::Ok(Some(workspace))
    };
    let workspace = tokio::select! {
        biased;
        () = signals.next() => return Ok(ExitCode::from(130)),
        prepared = prepare => match prepared? {
            Some(workspace) => workspace,
            None => return Ok(ExitCode::FAILURE),
        },
    };

    let mut tests = Service::start(&cargo(), |command| {
        command.args(["test", "--workspace"]).current_dir(&workspace.root);
        if all && workspace.has_all_tests {
            // Of every package that has it.
            command.args(["--features", "all-tests"]);
        }
        command.args(args).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        if yes {
            command.env(YES, "1");
        }
    })?;
    let status = tokio::select! {
        biased;
        () = signals.next() => {
            tests.stop(&mut signals).await;
            return Ok(ExitCode::from(130));
        }
        status = tests.ended() => status?,
    };
    if !all {
        let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
        say(format_args!("not run: {} (`cargo dev test --all` runs every group)", names.join(", ")));
    }
    Ok(exit_code(status))
}
