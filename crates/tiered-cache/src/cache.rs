//! The cache as callers see it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::breaker::Breaker;
use crate::builder::Builder;
use crate::entry::Refresh;
use crate::flight::{Arrived, Flight, Flights, Joined, State};
use crate::gate::Gate;
use crate::l1::L1;
use crate::listen;
use crate::load::Purpose;
use crate::metrics::CacheMetrics;
use crate::redis::{RedisBus, RedisRemote};
use crate::remote::Bus;
use crate::{
    CacheError, CacheKey, Entry, Hit, Kind, LoadCx, LoadError, LoadOutcome, OutboxStore, Policy, Read, Remote,
    StaleReason, Tier,
};

/// A cache in tiers. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct TieredCache {
    pub(crate) inner: Arc<Inner>,
    /// Stops the background tasks with the last clone.
    _stop: Arc<DropGuard>,
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
    pub(crate) breaker: Breaker,
    /// Nanoseconds after `started` up to which L1 may answer; `u64::MAX` without a bus.
    fence: AtomicU64,
    /// The outbox was seen empty since the fence was last shut.
    pub(crate) caught_up: AtomicBool,
}

/// How the cache is doing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CacheHealth {
    /// L1 may answer: the bus was heard lately, or there is none.
    pub fence_open: bool,
    /// The shared tier is left alone after failures.
    pub breaker_open: bool,
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
        let Builder { l1_bytes, namespace, redis, remote, outbox, settings, .. } = parts;
        let shared: Option<(Arc<dyn Remote>, Box<dyn Bus>)> = remote.or_else(|| {
            let redis = redis?;
            let bus = RedisBus::new(&redis, &namespace);
            Some((Arc::new(RedisRemote::new(redis, &namespace, settings.lease)), Box::new(bus)))
        });
        let (remote, bus) = shared.unzip();
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            runtime: runtime.clone(),
            l1: L1::new(l1_bytes),
            flights: Flights::new(settings.flights),
            gate: Gate::new(settings.load_permits, settings.load_queue),
            retries: Semaphore::new(settings.max_retries),
            settings,
            remote,
            outbox,
            metrics: CacheMetrics::default(),
            origin: rand::random(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: stop.clone(),
            breaker: Breaker::new(),
            started: Instant::now(),
            fence: AtomicU64::new(if bus.is_some() { 0 } else { u64::MAX }),
            caught_up: AtomicBool::new(false),
        });
        if let Some(bus) = bus {
            let weak = Arc::downgrade(&inner);
            runtime.spawn(stop.clone().run_until_cancelled_owned(listen::bus(weak.clone(), bus)));
            runtime.spawn(stop.clone().run_until_cancelled_owned(listen::breaker(weak.clone())));
            if inner.outbox.is_some() {
                runtime.spawn(stop.clone().run_until_cancelled_owned(listen::outbox(weak)));
            }
        }
        Self { inner, _stop: Arc::new(stop.drop_guard()) }
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
        let ask = Ask { policy, read, begun: Instant::now() };
        if let Some(hit) = inner.lookup(key, ask) {
            if hit.stale.is_none() && is_due(&hit.entry, policy, ask.begun) {
                inner.refresh(key, policy, &hit.entry, load);
            }
            return Ok(hit);
        }
        let outcome = inner.miss(key, ask, load).await;
        if let Err(error) = &outcome {
            inner.metrics.failed(policy.cache, error);
        }
        outcome
    }

    /// How the cache is doing.
    #[must_use]
    pub fn health(&self) -> CacheHealth {
        let inner = &self.inner;
        CacheHealth {
            fence_open: inner.fence_open(Instant::now()),
            breaker_open: inner.breaker.is_open(),
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

/// An answer from L1, unless the entry is past its life and the source may be asked again.
fn here(entry: Arc<Entry>, now: Instant) -> Option<Hit> {
    if entry.is_fresh(now) {
        Some(Hit::new(entry, Tier::L1, None, now))
    } else if entry.is_throttled(now) {
        Some(Hit::new(entry, Tier::L1, Some(StaleReason::SourceFailed), now))
    } else {
        None
    }
}

/// Whether somebody should begin to refresh a fresh entry (XFetch): the likelier the nearer its end, counted in
/// times that the load takes. Drawn per request, so that a busy key is refreshed in time.
fn is_due(entry: &Entry, policy: &Policy, now: Instant) -> bool {
    // Beyond ten load times the draw is practically never due, and needn't be made.
    let reach = entry.times.cost.mul_f32(policy.beta.max(0.0));
    if now + reach * 10 < entry.times.expires_at || reach.is_zero() {
        return false;
    }
    match entry.refresh_state() {
        Refresh::Running => false,
        Refresh::Due => true,
        Refresh::Idle => {
            // 1 - [0, 1) is never 0.
            let draw = -(1.0 - rand::random::<f32>()).ln();
            let due = now + reach.mul_f32(draw) >= entry.times.expires_at && !entry.is_throttled(now);
            due && entry.refresh_step(Refresh::Idle, Refresh::Due)
        }
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
        /// It was begun after this caller asked: asking again won't help.
        final_word: bool,
    },
}

impl Ask<'_> {
    fn land(&self, arrived: Arrived) -> Landing {
        let read_since = arrived.source_read_at.is_some_and(|at| at >= self.begun);
        let accepted = match self.read {
            Read::Bounded | Read::Shared => true,
            Read::Source => read_since,
            // "Not found" has no version of its own: only a look at the source after the question counts.
            Read::Version(wanted) => {
                arrived.entry.version >= wanted || (read_since && arrived.entry.kind == Kind::NotFound)
            }
        };
        if !accepted {
            return Landing::TooOld { found: arrived.entry.version, final_word: read_since };
        }
        let mut hit = Hit::new(arrived.entry, arrived.tier, None, Instant::now());
        hit.stored = arrived.stored;
        Landing::Hit(hit)
    }
}

impl Inner {
    pub(crate) fn fence_open(&self, now: Instant) -> bool {
        let fence = self.fence.load(Ordering::Acquire);
        fence == u64::MAX || now.saturating_duration_since(self.started).as_nanos() < u128::from(fence)
    }

    /// Opens the fence for a while after `heard`, the time before an answered read of the bus was sent.
    pub(crate) fn advance_fence(&self, heard: Instant) {
        let until = heard.saturating_duration_since(self.started) + self.settings.fence;
        self.fence.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX - 1), Ordering::Release);
    }

    /// L1 alone; `None` also when the caller should go to `get_or_load` to begin an early refresh.
    fn peek(&self, key: &CacheKey, policy: &Policy, now: Instant) -> Option<Hit> {
        let entry = self.l1_entry(key, policy, now)?;
        let hit = here(entry, now)?;
        if hit.stale.is_none() && is_due(&hit.entry, policy, now) {
            return None;
        }
        self.hit(policy, &hit, Read::Bounded);
        Some(hit)
    }

    fn hit(&self, policy: &Policy, hit: &Hit, read: Read) {
        tracing::debug!(target: "tiered_cache", { cache.tier = "l1", cache = policy.cache }, "cache_hit");
        self.metrics.served(policy.cache, hit, read);
    }

    /// L1 as `get_or_load` looks at it.
    fn lookup(&self, key: &CacheKey, ask: Ask<'_>) -> Option<Hit> {
        let entry = match ask.read {
            Read::Bounded => self.l1_entry(key, ask.policy, ask.begun)?,
            Read::Version(wanted) => {
                self.l1_entry(key, ask.policy, ask.begun).filter(|entry| entry.version >= wanted)?
            }
            Read::Shared | Read::Source => return None,
        };
        let hit = here(entry, ask.begun)?;
        self.hit(ask.policy, &hit, ask.read);
        Some(hit)
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

    /// Joins the key's flight or begins one, and waits.
    async fn miss<F, Fut>(self: &Arc<Self>, key: &CacheKey, ask: Ask<'_>, load: F) -> Result<Hit, CacheError>
    where
        F: FnOnce(LoadCx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<LoadOutcome, LoadError>> + Send + 'static,
    {
        if self.closing.is_cancelled() {
            return Err(CacheError::Closed);
        }
        let mut load = Some(load);
        loop {
            let (flight, led) = match self.flights.join(key, ask.policy.schema, |f| self.may_join(f, ask)) {
                Joined::Follow(flight) => (flight, false),
                Joined::Lead(flight) => {
                    let Some(load) = load.take() else {
                        // A second flight of one's own is never needed: the first was begun after `begun`.
                        self.flights.remove(&flight);
                        self.flights.landed();
                        return Err(CacheError::Timeout);
                    };
                    self.launch(&flight, ask.policy.clone(), Purpose::Read(ask.read), load);
                    (flight, true)
                }
                Joined::Refused => {
                    return Err(CacheError::Overloaded { retry_after: Duration::from_secs(1) });
                }
            };
            match self.wait(&flight, ask).await? {
                Landing::Hit(mut hit) => {
                    hit.collapsed = !led;
                    self.metrics.served(ask.policy.cache, &hit, ask.read);
                    return Ok(hit);
                }
                Landing::TooOld { found, final_word } if led || final_word => {
                    return Err(CacheError::VersionNotReached { found });
                }
                Landing::TooOld { .. } => self.flights.remove(&flight),
            }
        }
    }

    /// Begins to load a value that is still fresh, unless it is being loaded already.
    fn refresh<F, Fut>(self: &Arc<Self>, key: &CacheKey, policy: &Policy, entry: &Entry, load: F)
    where
        F: FnOnce(LoadCx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<LoadOutcome, LoadError>> + Send + 'static,
    {
        if self.closing.is_cancelled() || !entry.refresh_step(Refresh::Due, Refresh::Running) {
            return;
        }
        if let Joined::Lead(flight) = self.flights.join(key, policy.schema, |_| true) {
            self.launch(&flight, policy.clone(), Purpose::Refresh, load);
        }
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
