//! The cache as callers see it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builder::Builder;
use crate::flight::{Arrived, Flight, Flights, Joined, State};
use crate::gate::Gate;
use crate::l1::L1;
use crate::load::Purpose;
use crate::metrics::CacheMetrics;
use crate::{
    CacheError, CacheKey, Entry, Hit, Kind, LoadCx, LoadError, LoadOutcome, OutboxStore, Policy, Read, Remote,
    StaleReason, Tier,
};

/// A cache in tiers. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct TieredCache {
    pub(crate) inner: Arc<Inner>,
}

/// What the builder sets beside the parts.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) l1_ttl_cap: Duration,
    pub(crate) load_permits: usize,
    pub(crate) load_queue: usize,
    pub(crate) longest_write: Duration,
    pub(crate) fence: Duration,
    pub(crate) degraded: Duration,
    pub(crate) flights: usize,
    /// How long an error answers newcomers without another try.
    pub(crate) error_memo: Duration,
    /// A lease that isn't renewed for this long is free.
    pub(crate) lease: Duration,
    pub(crate) max_retries: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            l1_ttl_cap: Duration::from_secs(300),
            load_permits: 14,
            load_queue: 1024,
            longest_write: Duration::from_secs(32),
            fence: Duration::from_secs(1),
            degraded: Duration::from_secs(5),
            flights: 10_000,
            error_memo: Duration::from_millis(200),
            lease: Duration::from_secs(2),
            max_retries: 1024,
        }
    }
}

pub(crate) struct Inner {
    pub(crate) runtime: Handle,
    pub(crate) settings: Settings,
    pub(crate) l1: L1,
    pub(crate) flights: Flights,
    pub(crate) gate: Gate,
    pub(crate) remote: Option<Arc<dyn Remote>>,
    pub(crate) outbox: Option<Arc<dyn OutboxStore>>,
    pub(crate) metrics: CacheMetrics,
    /// Tells this replica's own messages on the bus from others'.
    pub(crate) origin: u64,
    pub(crate) tasks: TaskTracker,
    /// Bounds the invalidations that are delivered in the background.
    pub(crate) retries: Semaphore,
    /// No new loads.
    pub(crate) closing: CancellationToken,
    /// End of everything.
    pub(crate) stop: CancellationToken,
    started: Instant,
    /// Nanoseconds after `started` up to which L1 may answer; `u64::MAX` without a bus.
    fence: AtomicU64,
}

/// How the cache is doing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CacheHealth {
    /// L1 may answer: the bus was heard lately, or there is none.
    pub fence_open: bool,
    /// Flights under way.
    pub flights: usize,
    /// Loads that ask the source.
    pub loads: usize,
    /// Loads that wait for the gate.
    pub queued: usize,
    /// Bytes in L1.
    pub l1_bytes: u64,
    /// Entries in L1.
    pub l1_entries: u64,
}

impl TieredCache {
    /// Starts to put a cache together.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn start(parts: Builder, runtime: Handle) -> Self {
        let settings = parts.settings;
        let remote = parts.redis.map(|redis| -> Arc<dyn Remote> {
            Arc::new(crate::redis::RedisRemote::new(redis, &parts.namespace, settings.lease))
        });
        let remote = parts.remote.map(|(remote, _)| remote).or(remote);
        let inner = Inner {
            runtime,
            l1: L1::new(parts.l1_bytes),
            flights: Flights::new(settings.flights),
            gate: Gate::new(settings.load_permits, settings.load_queue),
            retries: Semaphore::new(settings.max_retries),
            settings,
            remote,
            outbox: parts.outbox,
            metrics: CacheMetrics::default(),
            origin: rand::random(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            closing: CancellationToken::new(),
            started: Instant::now(),
            fence: AtomicU64::new(u64::MAX),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Looks in L1 alone: no waiting, no allocation.
    #[must_use]
    pub fn peek(&self, key: &CacheKey, policy: &Policy) -> Option<Hit> {
        self.inner.peek(key, policy, Instant::now())
    }

    /// The value of `key`, from the nearest tier that has it, else from `load`.
    ///
    /// The load runs in a task of its own on the cache's runtime and is shared by all who ask meanwhile. Dropping
    /// the returned future changes nothing for them.
    ///
    /// # Errors
    ///
    /// When no tier has the value and the source failed, was too slow or too busy; see [`CacheError`].
    pub async fn get_or_load<F, Fut>(
        &self,
        key: &CacheKey,
        policy: &Policy,
        read: Read,
        load: F,
    ) -> Result<Hit, CacheError>
    where
        F: FnOnce(LoadCx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<LoadOutcome, LoadError>> + Send + 'static,
    {
        let inner = &self.inner;
        let begun = Instant::now();
        if let Some(hit) = inner.lookup(key, policy, read, begun) {
            return Ok(hit);
        }
        if inner.closing.is_cancelled() {
            return Err(CacheError::Closed);
        }
        let ask = Ask { policy, read, begun };
        let mut load = Some(load);
        loop {
            let (flight, led) = match inner.flights.join(key, policy.schema, |f| inner.may_join(f, ask)) {
                Joined::Follow(flight) => (flight, false),
                Joined::Lead(flight) => {
                    let Some(load) = load.take() else {
                        // A second flight of one's own is never needed: the first was begun after `begun`.
                        inner.flights.remove(&flight);
                        inner.flights.landed();
                        return Err(CacheError::Timeout);
                    };
                    inner.launch(&flight, policy.clone(), Purpose::Read(read), load);
                    (flight, true)
                }
                Joined::Refused => {
                    return Err(CacheError::Overloaded { retry_after: Duration::from_secs(1) });
                }
            };
            match inner.wait(&flight, ask).await? {
                Landing::Hit(mut hit) => {
                    hit.collapsed = !led;
                    inner.metrics.served(policy.cache, &hit, read);
                    return Ok(hit);
                }
                Landing::TooOld { found } if led => return Err(CacheError::VersionNotReached { found }),
                Landing::TooOld { .. } => inner.flights.remove(&flight),
            }
        }
    }

    /// How the cache is doing.
    #[must_use]
    pub fn health(&self) -> CacheHealth {
        let inner = &self.inner;
        CacheHealth {
            fence_open: inner.fence_open(Instant::now()),
            flights: inner.flights.under_way(),
            loads: inner.gate.in_use(),
            queued: inner.gate.queued(),
            l1_bytes: inner.l1.bytes(),
            l1_entries: inner.l1.entries(),
        }
    }

    /// The cache's metrics, to be registered once.
    #[must_use]
    pub fn metrics(&self) -> &CacheMetrics {
        &self.inner.metrics
    }

    /// Lets loads and writes finish for `grace`, then stops everything. New loads are refused at once.
    pub async fn shutdown(&self, grace: Duration) {
        let inner = &self.inner;
        inner.closing.cancel();
        inner.tasks.close();
        if tokio::time::timeout(grace, inner.tasks.wait()).await.is_err() {
            tracing::warn!(target: "tiered_cache", tasks = inner.tasks.len(), "stopped before all was done");
        }
        inner.stop.cancel();
    }
}

impl fmt::Debug for TieredCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCache").field("health", &self.health()).finish_non_exhaustive()
    }
}

/// What one caller wants.
#[derive(Clone, Copy)]
struct Ask<'a> {
    policy: &'a Policy,
    read: Read,
    begun: Instant,
}

/// How a wait ended.
enum Landing {
    Hit(Hit),
    /// The load was begun before this caller asked, or the source is behind.
    TooOld {
        found: u64,
    },
}

impl Ask<'_> {
    fn land(&self, arrived: Arrived) -> Landing {
        if !self.accepts(&arrived) {
            return Landing::TooOld { found: arrived.entry.version };
        }
        let mut hit = Hit::new(arrived.entry, arrived.tier, None, Instant::now());
        hit.stored = arrived.stored;
        Landing::Hit(hit)
    }

    fn accepts(&self, arrived: &Arrived) -> bool {
        let read_since = arrived.source_read_at.is_some_and(|at| at >= self.begun);
        match self.read {
            Read::Bounded | Read::Shared => true,
            Read::Source => read_since,
            // "Not found" has no version of its own: only a look at the source after the question counts.
            Read::Version(wanted) => {
                arrived.entry.version >= wanted || (read_since && arrived.entry.kind == Kind::NotFound)
            }
        }
    }
}

impl Inner {
    pub(crate) fn fence_open(&self, now: Instant) -> bool {
        let fence = self.fence.load(Ordering::Acquire);
        fence == u64::MAX || now.saturating_duration_since(self.started).as_nanos() < u128::from(fence)
    }

    fn peek(&self, key: &CacheKey, policy: &Policy, now: Instant) -> Option<Hit> {
        let entry = self.l1_entry(key, policy, now)?;
        if entry.is_fresh(now) {
            let hit = Hit::new(entry, Tier::L1, None, now);
            self.hit(policy, &hit);
            return Some(hit);
        }
        if entry.is_throttled(now) {
            let hit = Hit::new(entry, Tier::L1, Some(StaleReason::SourceFailed), now);
            self.hit(policy, &hit);
            return Some(hit);
        }
        None
    }

    /// L1 as `get_or_load` looks at it.
    fn lookup(&self, key: &CacheKey, policy: &Policy, read: Read, now: Instant) -> Option<Hit> {
        let hit = match read {
            Read::Bounded => self.peek(key, policy, now)?,
            Read::Version(wanted) => {
                let hit = self.peek(key, policy, now)?;
                (hit.entry.version >= wanted).then_some(hit)?
            }
            Read::Shared | Read::Source => return None,
        };
        Some(hit)
    }

    fn hit(&self, policy: &Policy, hit: &Hit) {
        tracing::debug!(target: "tiered_cache", { cache.tier = "l1", cache = policy.cache }, "cache_hit");
        self.metrics.served(policy.cache, hit, Read::Bounded);
    }

    /// The key's entry in L1 if it may be used now, fresh or not.
    pub(crate) fn l1_entry(&self, key: &CacheKey, policy: &Policy, now: Instant) -> Option<Arc<Entry>> {
        let entry = self.l1.get(key.hash())?;
        if entry.key != *key || entry.schema != policy.schema {
            return None;
        }
        if !entry.is_alive(now) {
            self.l1.remove(key.hash());
            return None;
        }
        self.may_serve(&entry, now).then_some(entry)
    }

    /// Whether the fence lets this process's copy of an entry out.
    fn may_serve(&self, entry: &Entry, now: Instant) -> bool {
        self.fence_open(now) || entry.times.own_until.is_some_and(|until| now < until)
    }

    /// With the fence shut nobody hears of invalidations, so an old flight may carry an old value.
    fn may_join(&self, flight: &Flight, ask: Ask<'_>) -> bool {
        self.fence_open(ask.begun) || ask.begun.saturating_duration_since(flight.begun) < self.settings.degraded
    }

    async fn wait(&self, flight: &Arc<Flight>, ask: Ask<'_>) -> Result<Landing, CacheError> {
        let mut state = flight.watch();
        let soft = ask.begun + ask.policy.soft_timeout;
        let hard = ask.begun + ask.policy.hard_timeout;
        let mut impatient = flight.is_slow();
        let mut takes_stale = ask.read == Read::Bounded;
        loop {
            let until = if impatient || !takes_stale { hard } else { soft.min(hard) };
            let ready = |state: &State| state.done.is_some() || (impatient && takes_stale && state.stale.is_some());
            let seen = match tokio::time::timeout_at(until, state.wait_for(ready)).await {
                Ok(Ok(state)) => State::clone(&state),
                // The sender lives in the flight, which is held here.
                Ok(Err(_)) => return Err(CacheError::Closed),
                Err(_) if until == hard => return Err(CacheError::Timeout),
                Err(_) => {
                    impatient = true;
                    flight.be_slow();
                    continue;
                }
            };
            let (error, reason) = match seen.done {
                Some(Ok(arrived)) => return Ok(ask.land(arrived)),
                Some(Err(error @ CacheError::Overloaded { .. })) => (Some(error), StaleReason::Overloaded),
                Some(Err(error)) => (Some(error), StaleReason::SourceFailed),
                None => (None, StaleReason::SourceSlow),
            };
            let stale = if takes_stale { seen.stale } else { None };
            match (stale.and_then(|(entry, tier)| self.stand_in(flight, entry, tier, reason)), error) {
                (Some(hit), _) => return Ok(Landing::Hit(hit)),
                (None, Some(error)) => return Err(error),
                (None, None) => takes_stale = false,
            }
        }
    }

    /// A value past its life in place of one that can't be had, unless it was invalidated or may have been.
    fn stand_in(&self, flight: &Flight, entry: Arc<Entry>, tier: Tier, reason: StaleReason) -> Option<Hit> {
        let now = Instant::now();
        let usable = !flight.is_detached() && entry.is_alive(now) && self.may_serve(&entry, now);
        usable.then(|| Hit::new(entry, tier, Some(reason), now))
    }
}
