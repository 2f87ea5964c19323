//! `ops history`: every deploy with its outcome, from the audit log.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::Global;
use crate::exit::{Exit, Failure, Result};
use crate::output::table::table;
use crate::output::{Document, Output};
use crate::state::State;
use crate::state::audit::Record;

/// Arguments of `ops history`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Every line of this deploy.
    pub deploy: Option<String>,
    /// Check that no line was changed or removed; exit code 8 if one was.
    #[arg(long)]
    pub verify: bool,
}

/// Deploys, or one deploy's lines, in the order of time.
#[derive(Debug, Serialize, JsonSchema)]
pub struct History {
    lines: Vec<Record>,
    /// The first line that doesn't fit the one before it.
    broken_at: Option<u64>,
}

impl Document for History {
    const KIND: &'static str = "history";
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |one: &Record| {
            [
                one.at.clone(),
                one.deploy.clone(),
                format!("{:?}", one.strategy).to_lowercase(),
                one.version.clone(),
                one.phase.name(),
                one.outcome.clone().unwrap_or_else(|| "-".to_owned()),
                one.actor.clone(),
                one.detail.clone().unwrap_or_default().lines().next().unwrap_or_default().to_owned(),
            ]
        };
        let rows: Vec<_> = self.lines.iter().map(row).collect();
        f.write_str(&table(["AT", "DEPLOY", "STRATEGY", "VERSION", "PHASE", "OUTCOME", "BY", "WHY"], &rows))
    }
}

/// Reads and shows; needs no lock.
pub fn run(args: &Args, global: &Global, output: &Output) -> Result<Exit> {
    let (records, broken_at) = State::new(&global.state_dir).audited()?;
    let lines = match &args.deploy {
        Some(id) => records.into_iter().filter(|record| record.deploy == *id).collect(),
        None => last_of_each(records),
    };
    output.show(&History { lines, broken_at })?;
    match broken_at {
        Some(line) if args.verify => Err(Failure::new(
            Exit::OperatorNeeded,
            format!("line {line} of the audit log doesn't fit the one before it"),
        )),
        _ => Ok(Exit::Done),
    }
}

/// How each deploy ended, or how far it is.
fn last_of_each(records: Vec<Record>) -> Vec<Record> {
    let mut lines: Vec<Record> = Vec::new();
    for record in records {
        match lines.iter_mut().find(|line| line.deploy == record.deploy) {
            Some(line) => *line = record,
            None => lines.push(record),
        }
    }
    lines
}
