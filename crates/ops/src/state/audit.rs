//! The audit log: one JSON object a line, each with the hash of the line before it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::journal::{Deploy, Phase, Strategy};
use super::{State, now};
use crate::exit::{Exit, OrExit, Result};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    pub seq: u64,
    pub at: String,
    /// The user's number and the machine.
    pub actor: String,
    pub deploy: String,
    pub strategy: Strategy,
    pub image: String,
    /// The image's own id, and how many replicas of it.
    #[serde(default)]
    pub image_id: String,
    #[serde(default)]
    pub replicas: usize,
    pub version: String,
    /// Migrations of the database that were applied for it.
    #[serde(default)]
    pub migrations: Vec<String>,
    pub phase: Phase,
    pub share: u32,
    /// Set when the deploy has ended.
    pub outcome: Option<String>,
    pub detail: Option<String>,
    /// SHA-256 of the line before; of nothing for the first.
    pub prev_sha256: String,
}

impl State {
    /// Adds what the deploy has come to.
    pub fn audit(&self, deploy: &Deploy, detail: Option<String>) -> Result<()> {
        let doing = "can't write the audit log";
        let path = self.file("audit.jsonl");
        let mut file = File::options().create(true).append(true).read(true).open(path);
        let file = file.as_mut().or_exit(Exit::OperatorNeeded, doing)?;
        let last = last_line(file).or_exit(Exit::OperatorNeeded, doing)?;
        let before = last.as_deref().and_then(|line| serde_json::from_str::<Record>(line).ok());
        let record = Record {
            seq: before.map_or(1, |record| record.seq + 1),
            at: now(),
            actor: actor(),
            deploy: deploy.id.clone(),
            strategy: deploy.strategy,
            image: deploy.image.clone(),
            image_id: deploy.new.first().map(|one| one.image_id.clone()).unwrap_or_default(),
            replicas: deploy.new.len(),
            version: deploy.version.clone(),
            migrations: deploy.migrations.clone(),
            phase: deploy.phase,
            share: deploy.share,
            outcome: deploy.outcome.clone(),
            detail: detail.or_else(|| deploy.reason.clone()),
            prev_sha256: hash(last.as_deref().unwrap_or_default()),
        };
        let line = serde_json::to_string(&record).or_exit(Exit::OperatorNeeded, doing)? + "\n";
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).or_exit(Exit::OperatorNeeded, doing)
    }

    /// All lines, and the number of the first that doesn't fit the one before it.
    pub fn audited(&self) -> Result<(Vec<Record>, Option<u64>)> {
        let text = match fs::read_to_string(self.file("audit.jsonl")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.or_exit(Exit::Precondition, "can't read the audit log")?,
        };
        let (mut records, mut before, mut broken) = (Vec::<Record>::new(), "", None);
        for (line, number) in text.lines().zip(1..) {
            match serde_json::from_str::<Record>(line) {
                Ok(record) if record.seq == number && record.prev_sha256 == hash(before) => records.push(record),
                Ok(record) => {
                    broken = broken.or(Some(number));
                    records.push(record);
                }
                Err(_) => broken = broken.or(Some(number)),
            }
            before = line;
        }
        Ok((records, broken))
    }
}

/// Cuts off what a crash left half written.
fn last_line(file: &mut File) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        file.set_len(whole as u64)?;
    }
    Ok(text[..whole].lines().last().map(str::to_owned))
}

fn hash(line: &str) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn actor() -> String {
    let system = rustix::system::uname();
    let (uid, host) = (rustix::process::getuid().as_raw(), system.nodename().to_string_lossy());
    format!("uid {uid} on {host}")
}
