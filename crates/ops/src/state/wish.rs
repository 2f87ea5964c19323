//! What an operator wishes of the deploy under way: a file that `pause`, `resume` and `abort` write, and signals.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::{State, replace};
use crate::exit::{Exit, OrExit, Result};

/// Between two looks at the file.
const POLL: Duration = Duration::from_millis(100);

/// What is wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    Go,
    /// Stay at this step.
    Pause,
    /// Undo it.
    Abort,
}

impl State {
    /// Writes the wish down for whoever deploys. False: the deploy is to be undone, and that stays so.
    pub fn wish(&self, wish: Wish) -> Result<bool> {
        // One after the other, so that nobody overwrites an abort that came after he had looked.
        let turn = File::options().create(true).append(true).open(self.file("wish.lock"));
        let turn = turn.or_exit(Exit::Precondition, "can't write the wish down")?;
        turn.lock().or_exit(Exit::Precondition, "can't write the wish down")?;
        if wish != Wish::Abort && self.wished() == Wish::Abort {
            return Ok(false);
        }
        self.write_wish(wish).map(|()| true)
    }

    /// For a new deploy nothing is wished yet.
    pub fn forget_wishes(&self) -> Result<()> {
        self.write_wish(Wish::Go)
    }

    fn write_wish(&self, wish: Wish) -> Result<()> {
        let text = match wish {
            Wish::Go => "go",
            Wish::Pause => "pause",
            Wish::Abort => "abort",
        };
        replace(&self.file("wish"), text.as_bytes()).or_exit(Exit::Precondition, "can't write the wish down")
    }

    fn wished(&self) -> Wish {
        match fs::read_to_string(self.file("wish")).as_deref() {
            Ok("pause") => Wish::Pause,
            Ok("abort") => Wish::Abort,
            _ => Wish::Go,
        }
    }
}

/// Hears wishes and signals.
#[derive(Debug, Clone)]
pub struct Wishes {
    state: State,
    signalled: Arc<AtomicBool>,
}

impl Wishes {
    /// Hears only the file.
    pub fn new(state: &State) -> Self {
        Self { state: state.clone(), signalled: Arc::default() }
    }

    /// Hears SIGINT and SIGTERM as well.
    pub fn listen(state: &State) -> Result<Self> {
        let wishes = Self::new(state);
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            let mut signals = signal(kind).or_exit(Exit::Precondition, "can't listen for signals")?;
            let signalled = Arc::clone(&wishes.signalled);
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    signalled.store(true, Ordering::Relaxed);
                }
            });
        }
        Ok(wishes)
    }

    /// Waits until the deploy is to be undone.
    pub async fn aborted(&self) {
        while self.now() != Wish::Abort {
            sleep(POLL).await;
        }
    }

    /// What is wished now.
    pub fn now(&self) -> Wish {
        if self.signalled.load(Ordering::Relaxed) { Wish::Abort } else { self.state.wished() }
    }
}
