//! What deploys leave on disk: the journal of the last one, the audit log, the lock, and what an operator wishes.

pub mod audit;
pub mod journal;
pub mod lock;
pub mod textfile;
pub mod wish;

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::exit::{Exit, OrExit, Result};

/// The folder with the state.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

impl State {
    /// Nothing is read or made yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Makes the folder if it is new; others may not read it.
    fn make(&self) -> Result<()> {
        let doing = format!("can't use {} for state (see --state-dir)", self.folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).or_exit(Exit::Precondition, doing)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Replaces a file's content so that after a crash it has the old or the new one, whole.
pub fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Now, as written down.
pub fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
