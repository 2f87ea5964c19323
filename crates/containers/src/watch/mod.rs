//! Commands that look at one container for a while: `ops monitor` and `ops memory`.

pub mod memory;
pub mod monitor;
pub mod record;
pub mod trend;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::exit::{Exit, OrExit, Result};

/// What both take.
#[derive(Debug, Clone, clap::Args)]
// Two structs of one name would be one group.
#[group(skip)]
pub struct Args {
    /// A container's name or id.
    pub container: String,
    /// For how long.
    #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    pub length: Duration,
    /// How often; the engine takes a sample every second.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub every: Option<Duration>,
    /// Where the report with all samples is written.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Writes a report for programs, whole or not at all.
async fn save<T: Serialize>(path: &PathBuf, report: &T) -> Result<()> {
    let doing = format!("can't write the report {}", path.display());
    let text = serde_json::to_vec_pretty(report).or_exit(Exit::OperatorNeeded, &doing)?;
    let beside = path.with_extension("part");
    tokio::fs::write(&beside, text).await.or_exit(Exit::Precondition, &doing)?;
    tokio::fs::rename(&beside, path).await.or_exit(Exit::Precondition, &doing)
}
