//! What all clones of a cache share.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builder::Links;
use crate::fence::Fence;
use crate::flight::{Flights, lock};
use crate::gate::Gate;
use crate::l1::L1;
use crate::l3::L3;
use crate::log::{Change, ChangeLog, Changed};
use crate::metrics::CacheMetrics;
use crate::recent::Recent;
use crate::state::State;
use crate::untold::Untold;
use crate::{Reached, Remote, WhenBlind};

pub(crate) struct Inner {
    pub(crate) runtime: Handle,
    pub(crate) probe_every: u32,
    pub(crate) links: Links,
    pub(crate) when_blind: WhenBlind,
    pub(crate) l1: L1,
    pub(crate) flights: Flights,
    pub(crate) gate: Gate,
    pub(crate) log: Option<Arc<dyn ChangeLog>>,
    pub(crate) remote: Option<Arc<dyn Remote>>,
    pub(crate) l3: Option<L3>,
    pub(crate) metrics: CacheMetrics,
    /// This replica's name, and what tells its own notices on the bus from others'.
    pub(crate) replica: u64,
    pub(crate) tasks: TaskTracker,
    pub(crate) probing: Semaphore,
    /// No new loads.
    pub(crate) closing: CancellationToken,
    /// End of everything.
    pub(crate) stop: CancellationToken,
    pub(crate) started: Instant,
    pub(crate) fence: Fence,
    pub(crate) recent: Recent,
    pub(crate) untold: Untold,
    pub(crate) log_state: State,
    pub(crate) remote_state: State,
    pub(crate) heard: Mutex<Heard>,
    /// The newest version that the source has given out, as far as the log says.
    pub(crate) newest: AtomicU64,
    /// Own notices that the bus hasn't brought back: what changed first, when sent.
    pub(crate) echoes: Mutex<VecDeque<(Changed, Instant)>>,
    /// Reads the log.
    pub(crate) follower: Mutex<Option<JoinHandle<()>>>,
}

/// What was heard when; all times are those before an answered question was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Heard {
    pub(crate) log: Option<Instant>,
    pub(crate) bus: Option<Instant>,
    /// Since then no notice of the bus was missed.
    pub(crate) bus_unbroken_since: Option<Instant>,
    /// How many replicas read the log, as it said last.
    pub(crate) replicas: usize,
    /// How far the bus was read.
    pub(crate) reached: Reached,
    /// What the shared tier said last to a replica that can't read the log.
    pub(crate) vouched: Option<Vouched>,
}

/// All notices of what was committed up to some time are on the bus.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vouched {
    pub(crate) up_to: Instant,
    pub(crate) notices: Reached,
}

impl Heard {
    /// Up to when all was heard that the shared tier vouches for: its notices were read, and none was missed since this
    /// replica read the log itself.
    pub(crate) fn vouched_up_to(&self) -> Option<Instant> {
        let unbroken = self.bus_unbroken_since? <= self.log?;
        let read = self.vouched.filter(|vouched| unbroken && self.reached.covers(vouched.notices));
        read.map(|vouched| vouched.up_to)
    }
}

impl Inner {
    pub(crate) fn heard(&self) -> Heard {
        *lock(&self.heard)
    }

    /// Forgets what is older than these changes say, in this process.
    pub(crate) fn forget(&self, changes: &[Change]) {
        for change in changes {
            match change.what {
                Changed::Key(hash) => {
                    self.l1.invalidate(hash, change.version);
                    self.flights.detach(hash);
                }
                Changed::Kind(slot) => {
                    self.l1.flush(slot);
                    self.flights.detach_all();
                }
            }
        }
    }

    /// Those of `changes` that weren't applied here yet.
    pub(crate) fn news(&self, changes: &[Change]) -> Vec<Change> {
        let applied = |change: &Change| match change.what {
            Changed::Key(hash) => self.recent.knows(hash, change.version),
            Changed::Kind(_) => false,
        };
        changes.iter().filter(|change| !applied(change)).cloned().collect()
    }

    /// Applies changes that were heard of otherwise than by the log.
    pub(crate) fn apply(&self, changes: &[Change]) {
        let news = self.news(changes);
        let now = Instant::now();
        // Remembered first: what is found in a shared tier from then on is judged by it.
        news.iter().for_each(|change| self.recent.heard(change, now));
        self.forget(&news);
    }
}

/// How long a read of the source may be served when nothing says that it changed; a probe waits longer.
pub(crate) const SETTLED: Duration = Duration::from_secs(2);
