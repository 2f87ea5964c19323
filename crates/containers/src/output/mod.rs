//! What a command writes: one document on stdout, as a table or as JSON; everything else on stderr.

pub mod table;
pub mod terminal;
pub mod units;

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::{Exit, Failure, OrExit, Result};

/// The schema that JSON documents follow; a change that breaks readers gets a new one.
pub const SCHEMA: &str = "ops/v1";

/// What a command answers with: JSON by its fields, text by `Display`, for which the formatter's width is the terminal's.
pub trait Document: Serialize + JsonSchema + Display {
    /// Tells documents apart, in the field `kind`.
    const KIND: &'static str;
}

/// A document in its envelope.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Envelope<'a, T> {
    schema: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    document: &'a T,
}

/// Where output goes and in which form.
#[derive(Debug)]
pub struct Output {
    json: bool,
    /// A person watches stderr.
    terminal: bool,
}

impl Output {
    /// JSON or tables.
    pub fn new(json: bool) -> Self {
        Self { json, terminal: std::io::stderr().is_terminal() }
    }

    /// Writes the command's one document.
    pub fn show<T: Document>(&self, document: &T) -> Result<()> {
        let text = if self.json {
            let envelope = Envelope { schema: SCHEMA, kind: T::KIND, document };
            serde_json::to_string(&envelope).or_exit(Exit::OperatorNeeded, "can't write JSON")? + "\n"
        } else {
            terminal::shown(document)
        };
        // Whoever closed the pipe has read enough.
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    }

    /// Writes a line of progress, while the command goes on.
    pub fn progress(&self, line: impl Display) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// Writes over the last such line where a person watches, and nothing elsewhere.
    pub fn ticker(&self, line: impl Display) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[2K{line}");
        }
    }

    /// Says why the command failed; to programs as a document too.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            // It is only text: it can always be written.
            let _ = self.show(failure);
        }
        let _ = writeln!(std::io::stderr(), "ops: {}", failure.message);
    }
}

impl Document for Failure {
    const KIND: &'static str = "error";
}
