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
use tracing::Span;

use crate::WhenBlind;
use crate::fence::Fence;
use crate::flight::Flights;
use crate::gate::Gate;
use crate::heard::Heard;
use crate::l1::L1;
use crate::l3::L3;
use crate::lock::lock;
use crate::log::{Change, ChangeLog, Changed};
use crate::metrics::CacheMetrics;
use crate::part::Part;
use crate::recent::Recent;
use crate::shared::Shared;
use crate::untold::Untold;

const FLIGHTS: usize = 10_000;

/// See [`Builder::links`](crate::Builder::links).
pub(crate) struct Links {
    pub(crate) name: fn() -> String,
    pub(crate) link: fn(&Span, &str),
}

pub(crate) struct Inner {
    pub(crate) runtime: Handle,
    pub(crate) probe_every: u32,
    pub(crate) links: Links,
    pub(crate) when_blind: WhenBlind,
    pub(crate) l1: L1,
    pub(crate) flights: Flights,
    pub(crate) gate: Gate,
    pub(crate) log: Option<Arc<dyn ChangeLog>>,
    pub(crate) log_part: Part,
    pub(crate) shared: Option<Shared>,
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
    pub(crate) heard: Mutex<Heard>,
    /// The newest version that the source has given out, as far as the log and loads say.
    pub(crate) newest: AtomicU64,
    /// Own notices that the bus hasn't brought back: what changed first, when sent.
    pub(crate) echoes: Mutex<VecDeque<(Changed, Instant)>>,
    /// Reads the log.
    pub(crate) follower: Mutex<Option<JoinHandle<()>>>,
}

impl Inner {
    /// One with L1 alone.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            probe_every: 10_000,
            links: Links { name: String::new, link: |_, _| () },
            when_blind: WhenBlind::default(),
            l1: L1::new(64 * 1024 * 1024),
            flights: Flights::new(FLIGHTS),
            gate: Gate::new(14, 1024, Duration::from_secs(2)),
            log: None,
            log_part: Part::used("no log"),
            shared: None,
            l3: None,
            metrics: CacheMetrics::default(),
            // Below 2^53, for Lua's sake, and never 0.
            replica: rand::random_range(1..1 << 53),
            tasks: TaskTracker::new(),
            probing: Semaphore::new(1),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            started: Instant::now(),
            fence: Fence::new(true),
            recent: Recent::default(),
            untold: Untold::default(),
            heard: Mutex::default(),
            newest: AtomicU64::new(0),
            echoes: Mutex::default(),
            follower: Mutex::default(),
        }
    }

    pub(crate) fn heard(&self) -> Heard {
        *lock(&self.heard)
    }

    /// The shared tier, while what it holds can be judged and it can be used.
    pub(crate) fn usable_shared(&self) -> Option<&Shared> {
        self.shared.as_ref().filter(|shared| self.fence.is_open(Instant::now()) && shared.part.admits())
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
                    self.flights.detach_all(|key| key.slot() == slot);
                }
            }
        }
    }

    /// Those of `changes` that weren't applied here yet.
    pub(crate) fn news(&self, changes: &[Change]) -> Vec<Change> {
        let known =
            |change: &Change| matches!(change.what, Changed::Key(hash) if self.recent.knows(hash, change.version));
        changes.iter().filter(|change| !known(change)).cloned().collect()
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
