//! Exit codes, which programs rely on, and errors that know theirs.

use std::fmt::Display;
use std::process::ExitCode;

/// What a command ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The command line is wrong.
    Usage = 2,
    /// Something that must hold before doesn't; nothing was changed.
    Precondition = 3,
    /// Another deploy holds the lock.
    Locked = 4,
    /// The new version never got ready; no traffic moved.
    NeverReady = 5,
    /// A gate failed; rolled back.
    GateFailed = 6,
    /// Too little was seen to decide; rolled back.
    Inconclusive = 7,
    /// It can't be put right from here.
    OperatorNeeded = 8,
    /// The engine or the balancer can't be reached.
    Unreachable = 9,
    /// Interrupted; what runs is consistent.
    Interrupted = 11,
    /// Warnings found.
    Warnings = 20,
    /// Critical findings.
    Critical = 21,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command failed, in a sentence for who ran it, and what it ends with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, schemars::JsonSchema)]
#[error("{message}")]
pub struct Failure {
    /// What the process ends with.
    pub exit: Exit,
    /// The sentence.
    pub message: String,
}

impl Failure {
    /// A failure that ends the process with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

/// What a command or one of its parts gives.
pub type Result<T> = std::result::Result<T, Failure>;

/// Gives other libraries' errors an exit code and says what was being done.
pub trait OrExit<T> {
    /// Fails with `exit` and "`doing`: why".
    fn or_exit(self, exit: Exit, doing: impl Display) -> Result<T>;
}

impl<T, E: Display> OrExit<T> for std::result::Result<T, E> {
    fn or_exit(self, exit: Exit, doing: impl Display) -> Result<T> {
        self.map_err(|error| Failure::new(exit, format!("{doing}: {error}")))
    }
}
