//! One replica's way to something that all share: it can be broken, and has gates at which whatever passes can be stopped.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// A test that waits this long, in its own time, has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// When whoever asks gives up.
const DEADLINE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Fails at once.
    Refused,
    /// Never answers; the deadline passes.
    Silent,
    /// Is carried out, but the answer is lost.
    AnswerLost,
    /// Is carried out so much later, when nobody waits for the answer any more.
    Late(Duration),
    /// Reads are answered, writes refused.
    ReadOnly,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Refused,
    Silent,
    ReadOnly,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Does {
    Read,
    Write,
}

#[derive(Clone, Default)]
struct State {
    down: Option<Down>,
    delay: Duration,
    /// Operations that are refused, by their first gates.
    refused: HashSet<&'static str>,
    shut: HashSet<&'static str>,
    waiting: HashMap<&'static str, usize>,
}

#[derive(Clone, Default)]
pub struct Way(Arc<watch::Sender<State>>);

impl Way {
    pub fn set(&self, down: Option<Down>) {
        self.0.send_modify(|state| state.down = down);
    }

    pub fn down(&self) -> Option<Down> {
        self.0.borrow().down
    }

    /// Everything takes this long, half of it on the way there.
    pub fn slow(&self, delay: Duration) {
        self.0.send_modify(|state| state.delay = delay);
    }

    /// Refuses one kind of operation, or carries it again.
    pub fn refuse(&self, operation: &'static str, refused: bool) {
        self.0.send_modify(|state| {
            state.refused.remove(operation);
            state.refused.extend(refused.then_some(operation));
        });
    }

    pub fn shut(&self, gate: &'static str) {
        self.0.send_modify(|state| {
            state.shut.insert(gate);
        });
    }

    pub fn open(&self, gate: &'static str) {
        self.0.send_modify(|state| {
            state.shut.remove(gate);
        });
    }

    /// Returns when somebody stands at the gate.
    pub async fn arrived(&self, gate: &'static str) {
        let waiting = |state: &State| state.waiting.get(gate).is_some_and(|n| *n > 0);
        let mut state = self.0.subscribe();
        tokio::time::timeout(PATIENCE, state.wait_for(waiting)).await.unwrap().unwrap();
    }

    pub async fn pass(&self, gate: &'static str) {
        let count = |by: isize| {
            self.0.send_modify(|state| {
                let waiting = state.waiting.entry(gate).or_default();
                *waiting = waiting.saturating_add_signed(by);
            });
        };
        if self.0.borrow().shut.contains(gate) {
            count(1);
            self.0.subscribe().wait_for(|state| !state.shut.contains(gate)).await.unwrap();
            count(-1);
        }
    }

    /// Carries something there and its answer back, by two gates.
    pub async fn carry<T: Send + 'static>(
        &self,
        gates: [&'static str; 2],
        does: Does,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        self.pass(gates[0]).await;
        let delay = self.0.borrow().delay;
        tokio::time::sleep(delay / 2).await;
        if self.0.borrow().refused.contains(gates[0]) {
            return Err(Lost::Refused);
        }
        match self.down() {
            Some(Down::Refused) => return Err(Lost::Refused),
            Some(Down::ReadOnly) if does == Does::Write => return Err(Lost::ReadOnly),
            Some(Down::Silent) => return self.give_up().await,
            Some(Down::Late(late)) => {
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    work()
                });
                return self.give_up().await;
            }
            Some(Down::AnswerLost | Down::ReadOnly) | None => {}
        }
        let done = work();
        tokio::time::sleep(delay / 2).await;
        if self.down() == Some(Down::AnswerLost) {
            return self.give_up().await;
        }
        self.pass(gates[1]).await;
        Ok(done)
    }

    async fn give_up<T>(&self) -> Result<T, Lost> {
        tokio::time::sleep(DEADLINE).await;
        Err(Lost::Silent)
    }
}
