//! `cargo dev test`.

use std::ffi::OsString;
use std::process::{ExitCode, Stdio};

use super::groups::{GROUPS, missing};
use super::install;
use super::service::{Service, exit_code};
use super::signals::Signals;
use super::workspace::{ALL, SICK, Workspace, cargo};
use crate::say::say;
use crate::settings::YES;

/// Which tests to run.
#[derive(Debug, Default)]
pub(super) struct Choice<'a> {
    /// Of this package alone.
    pub(super) package: Option<&'a str>,
    /// Also what needs more than Postgres and Redis.
    pub(super) all: bool,
    /// Also what needs the machine for itself.
    pub(super) sick: bool,
}

/// Provisions, runs `cargo test` and passes its exit code on.
pub(super) async fn run(choice: Choice<'_>, yes: bool, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let Choice { package, all, sick } = choice;
    let mut signals = Signals::new()?;
    let prepare = async {
        let workspace = Workspace::find().await?;
        let gone = if all { missing() } else { Vec::new() };
        for line in &gone {
            say(format_args!("missing: {line}"));
        }
        // One package may need none of it; its tests say so if they do.
        if !gone.is_empty() && package.is_none() {
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
        command.arg("test").current_dir(&workspace.root);
        match package {
            Some(package) => command.args(["--package", package]),
            None => command.arg("--workspace"),
        };
        // Of every package that has them.
        for group in workspace.groups(package) {
            if (group == ALL && all) || (group == SICK && sick) {
                command.args(["--features", group]);
            }
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
