//! Whether something that the cache lives by can be used now, and if not, why: said in the log once for each change.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;

/// So many failures of one use in a row say that it can't be used.
const FAILURES: u32 = 3;
/// Pause before each trial of a use that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// Looks that go well are believed when nothing has failed for so long.
const BELIEVED: Duration = Duration::from_secs(1);

/// The log, the shared tier, or the store of copies.
#[derive(Debug)]
pub(crate) struct Part {
    /// What it is called in log lines.
    name: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Not looked at yet, which isn't worth a word.
    Unknown,
    /// It can be used; how often each use failed since it last went well.
    Well(HashMap<&'static str, u32>),
    /// A look at it failed, until one goes well.
    Unwell(Arc<str>),
    /// This use of it failed, and hasn't gone well since.
    Failing(Failing),
}

#[derive(Debug)]
struct Failing {
    op: &'static str,
    reason: Arc<str>,
    /// When something failed last.
    last: Instant,
    /// When somebody may try again.
    trial: Instant,
    /// Looks go well, and nobody has tried for a while: it counts as well, but isn't told to be.
    believed: bool,
}

impl State {
    fn well() -> Self {
        Self::Well(HashMap::new())
    }
}

impl Part {
    /// One whose state looks will tell.
    pub(crate) fn looked_at(name: &'static str) -> Self {
        Self { name, state: Mutex::new(State::Unknown) }
    }

    /// One that is well until its use fails.
    pub(crate) fn used(name: &'static str) -> Self {
        Self { name, state: Mutex::new(State::well()) }
    }

    /// `None`: it is well.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        match &*lock(&self.state) {
            State::Well(_) => None,
            State::Unknown => Some("it has not been asked yet".into()),
            State::Unwell(reason) => Some(Arc::clone(reason)),
            State::Failing(failing) => (!failing.believed).then(|| Arc::clone(&failing.reason)),
        }
    }

    pub(crate) fn is_well(&self) -> bool {
        self.reason().is_none()
    }

    /// Whether the caller may use it now: also for a trial, which one caller makes now and then.
    pub(crate) fn admits(&self) -> bool {
        let now = Instant::now();
        match &mut *lock(&self.state) {
            State::Well(_) => true,
            State::Failing(failing) if failing.believed => true,
            State::Failing(failing) if now >= failing.trial => {
                failing.trial = now + PAUSE;
                true
            }
            _ => false,
        }
    }

    /// Notes how one use of it went.
    pub(crate) fn used_for<T, E: Display>(&self, op: &'static str, outcome: &Result<T, E>) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        match (&mut *state, outcome) {
            (State::Well(failures), Ok(_)) => drop(failures.remove(op)),
            (State::Well(failures), Err(error)) => {
                let failures = failures.entry(op).or_default();
                *failures += 1;
                if *failures >= FAILURES {
                    let reason = self.tell_unwell(error);
                    *state = State::Failing(Failing { op, reason, last: now, trial: now + PAUSE, believed: false });
                }
            }
            (State::Failing(failing), Ok(_)) if failing.op == op => self.mend(&mut state),
            (State::Failing(failing), Err(_)) => (failing.last, failing.believed) = (now, false),
            _ => {}
        }
    }

    /// Notes how a look at it went.
    pub(crate) fn look<T, E: Display>(&self, outcome: &Result<T, E>) {
        let mut state = lock(&self.state);
        match (&mut *state, outcome) {
            (State::Unknown, Ok(_)) => *state = State::well(),
            (State::Unwell(_), Ok(_)) => self.mend(&mut state),
            (State::Failing(failing), Ok(_)) => failing.believed = failing.last.elapsed() >= BELIEVED,
            (State::Well(_), Ok(_)) => {}
            (State::Unknown | State::Well(_), Err(error)) => *state = State::Unwell(self.tell_unwell(error)),
            // The same trouble in other words, such as a refused connection after a timeout, isn't told again.
            (_, Err(error)) => *state = State::Unwell(error.to_string().into()),
        }
    }

    fn tell_unwell(&self, error: &impl Display) -> Arc<str> {
        let (part, reason) = (self.name, error.to_string());
        tracing::warn!(name: "cache.part_unwell", target: "tiered_cache", part, error = reason, "{part} can't be used");
        reason.into()
    }

    fn mend(&self, state: &mut State) {
        let part = self.name;
        *state = State::well();
        tracing::info!(name: "cache.part_well", target: "tiered_cache", part, "{part} can be used again");
    }
}
