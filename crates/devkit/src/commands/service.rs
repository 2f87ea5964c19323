//! A process that we run for the user, in a group of its own so that only we hear Ctrl-C.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;

use super::signals::Signals;
use crate::guard::Guard;
use crate::process;
use crate::say::say;

/// The service's own bound for a clean stop is 25 s by default, and telemetry takes 2 s more.
const STOP: Duration = Duration::from_secs(40);

/// It ends with us, however we end.
#[derive(Debug)]
pub(super) struct Service(Guard);

impl Service {
    /// Starts the program; `set` adds arguments, environment and where its output goes.
    pub(super) fn start(program: &Path, set: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let mut guard = Guard::new(None, "TERM", 40)?;
        guard.start(program, set)?;
        Ok(Self(guard))
    }

    /// Waits until it ends by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        loop {
            let process = self.0.process().context("the process was stopped already")?;
            if let Some(status) = process.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGTERM, then patience; SIGKILL after that or on a second signal to us.
    pub(super) async fn stop(&mut self, signals: &mut Signals) {
        let Some(id) = self.0.id() else { return };
        process::signal_group(id, Signal::TERM);
        let start = Instant::now();
        let ended = tokio::select! {
            biased;
            () = signals.next() => false,
            ended = tokio::time::timeout(STOP, self.ended()) => ended.is_ok(),
        };
        if !ended {
            say(format_args!("killed: it didn't stop within {:.0?}", start.elapsed()));
            process::signal_group(id, Signal::KILL);
        }
        self.0.ended();
    }
}

/// The exit code to pass on; a signal as shells count it.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
