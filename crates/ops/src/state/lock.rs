//! One deploy at a time: a lock that the kernel frees when its holder ends, whatever ends it.

use std::fs::{self, File, TryLockError};

use super::{State, now};
use crate::exit::{Exit, Failure, OrExit, Result};

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl State {
    /// Takes the lock at once, or fails with exit code 4 and who holds it.
    pub fn lock(&self, command: &str) -> Result<Lock> {
        self.make()?;
        let (path, holder) = (self.file("lock"), self.file("lock.holder"));
        let doing = format!("can't lock {}", path.display());
        let file = File::options().create(true).append(true).open(&path).or_exit(Exit::Precondition, &doing)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who = fs::read_to_string(holder).unwrap_or_default();
                return Err(Failure::new(Exit::Locked, format!("another command is at work: {}", who.trim())));
            }
            Err(TryLockError::Error(error)) => return Err(error).or_exit(Exit::Precondition, doing),
        }
        let text = format!("ops {command}, process {}, since {}\n", std::process::id(), now());
        fs::write(holder, text).or_exit(Exit::Precondition, doing)?;
        Ok(Lock { _file: file })
    }
}
