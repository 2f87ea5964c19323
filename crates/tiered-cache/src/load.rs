//! One flight: look in the shared tiers, get the right to load, load, fill.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::codec::{self, Unreadable, Wire};
use crate::entry::Times;
use crate::flight::{Arrived, Flight, Outcome};
use crate::inner::Inner;
use crate::metrics::outcome;
use crate::remote::{Acquired, Fill, Filled, Found, Mark, Place};
use crate::shared::{Lease, Shared};
use crate::stripes::Epoch;
use crate::{Body, CacheError, Entry, LoadError, Loaded, Policy, Read, RemoteError, Tier};

/// The first and the longest wait between looks at a key that another replica loads.
const POLL: Range<Duration> = Duration::from_millis(10)..Duration::from_millis(80);
/// How long an error answers newcomers without another try.
const ERROR_MEMO: Duration = Duration::from_millis(200);
/// By how much a refreshed value outlives the one that it replaces; less is a copy of the same, late by its fill.
const REFRESHED: Duration = Duration::from_millis(250);

/// A caller's loader. Boxed, so that the code below exists once; only a miss pays for that.
pub(crate) type Load = Box<dyn FnOnce() -> BoxFuture<'static, Result<Loaded, LoadError>> + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read(Read),
    /// The value is still fresh, but not for long.
    Refresh,
}

/// Where a loaded value may be stored.
#[derive(Clone, Copy)]
enum Right<'a> {
    /// In every tier.
    Lease(Lease<'a>),
    /// Here alone: there is no shared tier, or it can't be used.
    Here,
    /// Nowhere: it changed meanwhile.
    Nowhere,
}

/// What a look into the shared tiers led to.
enum Step<'a> {
    Arrived(Arrived),
    Load(Right<'a>),
}

struct Loading<'a> {
    inner: &'a Inner,
    flight: &'a Arc<Flight>,
    policy: &'a Policy,
    purpose: Purpose,
    place: Place,
    epoch: Epoch,
    deadline: Instant,
}

/// Ends a flight however its task ends.
struct Landed {
    inner: Arc<Inner>,
    flight: Arc<Flight>,
}

impl Drop for Landed {
    fn drop(&mut self) {
        self.flight.complete(Err(CacheError::Panicked));
        self.inner.flights.remove(&self.flight);
        self.inner.flights.landed();
    }
}

impl Inner {
    pub(crate) fn launch(self: &Arc<Self>, flight: &Arc<Flight>, policy: Policy, purpose: Purpose, load: Load) {
        let landed = Landed { inner: Arc::clone(self), flight: Arc::clone(flight) };
        let work = async move {
            let Landed { inner, flight } = &landed;
            let outcome = Loading::new(inner, flight, &policy, purpose).run(load).await;
            let failed = matches!(outcome, Err(CacheError::Load(_) | CacheError::Panicked | CacheError::Timeout));
            if !failed {
                // First out of the map: newcomers look in L1 again.
                inner.flights.remove(flight);
            }
            flight.complete(outcome);
            if failed {
                // Newcomers find the error for a moment, so that a failing source isn't hammered.
                let memo = tokio::time::sleep(ERROR_MEMO);
                inner.closing.run_until_cancelled(memo).await;
            }
        };
        self.tasks.spawn_on(work.instrument(flight.span.clone()), &self.runtime);
    }
}

impl<'a> Loading<'a> {
    fn new(inner: &'a Inner, flight: &'a Arc<Flight>, policy: &'a Policy, purpose: Purpose) -> Self {
        let key = &flight.key;
        Self {
            inner,
            flight,
            policy,
            purpose,
            place: Place { hash: key.hash(), slot: key.slot(), schema: policy.schema },
            epoch: inner.l1.epoch(key),
            deadline: flight.begun + policy.load_timeout,
        }
    }

    async fn run(&self, load: Load) -> Outcome {
        let now = Instant::now();
        if let Some(found) = self.inner.l1_entry(&self.flight.key, self.policy, now) {
            // The flight before this one may have landed since the caller looked.
            if found.entry.is_fresh(now) && self.purpose == Purpose::Read(Read::Bounded) {
                return Ok(Arrived { entry: found.entry, tier: Tier::L1, stored: true, source_read_at: None });
            }
            self.flight.offer_stale(found.entry, Tier::L1);
        }
        let right = match self.inner.usable_shared() {
            Some(shared) => match self.look(shared).await? {
                Step::Arrived(arrived) => return Ok(arrived),
                Step::Load(right) => right,
            },
            None => Right::Here,
        };
        let outcome = self.load(right, load).await;
        if let (Err(_), Right::Lease(lease)) = (&outcome, right) {
            lease.release().await;
        }
        self.learn(outcome.is_ok());
        outcome
    }

    /// Ends the early refresh that this was, and asks a source that failed no more for a while.
    fn learn(&self, ok: bool) {
        if self.purpose == Purpose::Refresh {
            self.inner.metrics.refreshes.inc(self.policy.cache, outcome(ok));
        }
        let Some((stale, _)) = self.flight.stale() else { return };
        // Not replaced after all, perhaps: the next one may try again.
        stale.refreshing.store(false, Ordering::Release);
        if !ok {
            stale.throttle(Instant::now() + self.policy.fail_safe_throttle);
            self.inner.l1.insert(stale, self.epoch);
        }
    }

    /// Reads the shared tier and, on a miss, gets the right to load or what another replica loaded meanwhile.
    async fn look(&self, shared: &'a Shared) -> Result<Step<'a>, CacheError> {
        let (remote, cache, sent) = (&shared.remote, Some(self.policy.cache), Instant::now());
        let mut known = Bytes::new();
        match shared.ask("get", cache, remote.get(self.place)).await {
            Ok(Some(found)) => match self.take(shared, &found, sent).await {
                Some(arrived) => return Ok(Step::Arrived(arrived)),
                None => known = found.stamp,
            },
            Ok(None) => {}
            Err(RemoteError::WrongType) => self.remove(shared, Unreadable("type")).await,
            Err(_) => return Ok(Step::Load(Right::Here)),
        }
        let (token, mut pause) = (rand::random(), POLL.start);
        loop {
            let sent = Instant::now();
            let answer = shared.ask("acquire", cache, remote.acquire(self.place, token, &known)).await;
            let count = |result| self.inner.metrics.leases.inc(self.policy.cache, result);
            match answer {
                Ok(Acquired::Granted(mark)) => {
                    count("granted");
                    return Ok(self.take_copy(Lease { shared, place: self.place, token }, &mark).await);
                }
                Ok(Acquired::Found(found)) => match self.take(shared, &found, sent).await {
                    Some(arrived) => return Ok(Step::Arrived(arrived)),
                    None => known = found.stamp,
                },
                Ok(Acquired::Held) => count("held"),
                Err(_) => return Ok(Step::Load(Right::Here)),
            }
            // Also after a value of no use: so that a tier which gives nothing else isn't asked without a pause.
            let wake = sent + pause.mul_f32(0.5 + rand::random::<f32>());
            if wake >= self.deadline {
                count("wait_timeout");
                return Err(CacheError::Timeout);
            }
            tokio::time::sleep_until(wake).await;
            pause = (pause * 2).min(POLL.end);
        }
    }

    /// Makes an answer of a stored value, if it can be read, is right and is what this flight flies for.
    async fn take(&self, shared: &Shared, found: &Found, sent: Instant) -> Option<Arrived> {
        let stamped = found.stamp.iter().all(u8::is_ascii_digit);
        let read = if stamped { self.decode(&found.bytes) } else { Err(Unreadable("stamp")) };
        let wire = match read {
            Ok(wire) => wire,
            Err(why) => {
                self.remove(shared, why).await;
                return None;
            }
        };
        if !self.is_right(wire.version, found.cleaned) {
            return None;
        }
        let entry = Arc::new(self.copy(wire, found.age, sent));
        let now = Instant::now();
        if !entry.is_alive(now) {
            return None;
        }
        if !self.wants(&entry) || now >= entry.times.expires_at {
            if self.flight.stale().is_none() {
                self.flight.offer_stale(entry, Tier::L2);
            }
            return None;
        }
        Some(self.promote(entry, Tier::L2))
    }

    /// Uses L3's copy if Redis vouches for it; else the source is to be asked.
    async fn take_copy(&self, lease: Lease<'a>, mark: &Mark) -> Step<'a> {
        let load = Step::Load(Right::Lease(lease));
        let Some(l3) = &self.inner.l3 else { return load };
        let sent = Instant::now();
        let Some((bytes, since)) = l3.get(self.place, mark).await else { return load };
        let Ok(wire) = self.decode(&bytes) else {
            self.unreadable(Unreadable("l3"));
            return load;
        };
        // What L2 gets counts from its own stamp.
        let wire = wire.after(since);
        let entry = Arc::new(self.copy(wire.clone(), Duration::ZERO, sent));
        if !self.wants(&entry) || wire.fresh.is_zero() || !self.is_right(entry.version, mark.cleaned) {
            return load;
        }
        if let Ok(Filled::Lost | Filled::Older) = lease.fill(self.policy.cache, self.encode(&wire)).await {
            // It changed meanwhile: it answers nobody, and the lease is gone.
            return Step::Load(Right::Nowhere);
        }
        Step::Arrived(self.promote(entry, Tier::L3))
    }

    async fn load(&self, right: Right<'a>, load: Load) -> Outcome {
        let permit = if self.policy.gated { Some(self.inner.gate.enter(self.deadline).await?) } else { None };
        let begun = Instant::now();
        let loading = AssertUnwindSafe(async move { load().await }).catch_unwind();
        let loading = tokio::time::timeout_at(self.deadline, loading);
        let renewing = async {
            match right {
                Right::Lease(lease) => lease.renew().await,
                Right::Here | Right::Nowhere => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            outcome = loading => outcome,
            () = renewing => return Err(CacheError::Closed),
            () = self.inner.stop.cancelled() => return Err(CacheError::Closed),
        };
        drop(permit);
        self.inner.metrics.loaded(self.policy.cache, begun.elapsed());
        match outcome {
            Err(_) => Err(CacheError::Timeout),
            Ok(Err(_)) => Err(CacheError::Panicked),
            Ok(Ok(Err(error))) => Err(CacheError::Load(error)),
            Ok(Ok(Ok(loaded))) => Ok(self.store(right, loaded, begun).await),
        }
    }

    /// Fills the tiers that may have the value, and makes the answer.
    async fn store(&self, right: Right<'a>, loaded: Loaded, begun: Instant) -> Arrived {
        let cache = self.policy.cache;
        self.inner.newest.fetch_max(loaded.version, Ordering::Relaxed);
        let times = Times::loaded(self.policy, loaded.value.is_none(), begun);
        let entry = Arc::new(self.entry(loaded.version, loaded.value, times));
        let kept = match (self.refusal(&entry), right) {
            (None, Right::Lease(lease)) => self.fill(lease, &entry).await,
            (None, Right::Here) => true,
            (None, Right::Nowhere) => false,
            (Some(why), right) => {
                self.inner.metrics.fill(cache, "all", why);
                if let Right::Lease(lease) = right {
                    lease.release().await;
                }
                false
            }
        };
        let kept_here = kept && self.inner.l1.insert(Arc::clone(&entry), self.epoch);
        if kept {
            self.inner.metrics.fill(cache, "l1", if kept_here { "stored" } else { "epoch" });
        }
        let stored = kept_here || (kept && matches!(right, Right::Lease(_)));
        if stored {
            tracing::debug!(name: "cache_set", target: "tiered_cache", cache, "cache_set");
        }
        Arrived { entry, tier: Tier::Source, stored, source_read_at: Some(begun) }
    }

    /// Why a loaded value is stored nowhere.
    fn refusal(&self, entry: &Entry) -> Option<&'static str> {
        if entry.value.as_ref().is_some_and(|value| value.bytes.len() > self.policy.max_bytes) {
            return Some("too_big");
        }
        // The source is behind its own log: a lagging replica of it was asked.
        self.inner.recent.knows_newer(self.place.hash, entry.version).then_some("older")
    }

    /// Fills L2 and then L3; false when the value must not be kept anywhere.
    async fn fill(&self, lease: Lease<'a>, entry: &Entry) -> bool {
        let wire = entry.wire();
        // A copy in L3 goes by a name of its own, which Redis knows for as long as the copy may be used.
        let ttl = self.policy.l3_ttl.min(wire.fresh);
        let copied = self.inner.l3.as_ref().filter(|_| wire.value.is_some());
        let name = rand::random_range(1..=i64::MAX as u64);
        let fill = Fill { copy: copied.map(|_| (name, ttl)), ..self.encode(&wire) };
        let bytes = fill.bytes.clone();
        match (lease.fill(self.policy.cache, fill).await, copied) {
            (Ok(Filled::Stored { stamp }), Some(l3)) => {
                let kept = l3.set(self.place, name, stamp, &bytes, ttl).await;
                self.inner.metrics.fill(self.policy.cache, "l3", if kept { "stored" } else { "error" });
                true
            }
            (Ok(Filled::Lost | Filled::Older), _) => false,
            // Also when nobody knows whether it arrived: the log and the stripes watch over this process's copy.
            (Ok(Filled::Stored { .. }) | Err(_), _) => true,
        }
    }

    fn promote(&self, entry: Arc<Entry>, tier: Tier) -> Arrived {
        let stored = self.inner.l1.insert(Arc::clone(&entry), self.epoch);
        let (cache, name) = (self.policy.cache, tier.as_str());
        tracing::debug!(name: "cache_hit", target: "tiered_cache", { cache.tier = name, cache }, "cache_hit");
        Arrived { entry, tier, stored, source_read_at: None }
    }

    /// Whether nothing says that a value of this version is old.
    fn is_right(&self, version: u64, cleaned: u64) -> bool {
        self.inner.recent.vouches(self.place.hash, self.place.slot, version, cleaned)
    }

    /// Makes room for a value that can be read. If this fails, the next fill does it.
    async fn remove(&self, shared: &Shared, why: Unreadable) {
        self.unreadable(why);
        drop(shared.ask("remove", Some(self.policy.cache), shared.remote.remove(self.place)).await);
    }

    fn unreadable(&self, Unreadable(why): Unreadable) {
        let cache = self.policy.cache;
        tracing::debug!(name: "cache.unreadable", target: "tiered_cache", cache, error = why, "unreadable entry");
        self.inner.metrics.codec_errors.inc(cache, why);
    }

    /// Whether a stored value answers what this flight flies for.
    fn wants(&self, entry: &Entry) -> bool {
        match self.purpose {
            Purpose::Read(Read::Bounded) => true,
            Purpose::Read(Read::Version(wanted)) => entry.version >= wanted,
            // What another replica refreshed since, but not a copy of what this one set out to replace.
            Purpose::Refresh => {
                self.flight.stale().is_none_or(|(stale, _)| entry.times.expires_at > stale.times.expires_at + REFRESHED)
            }
        }
    }

    fn decode(&self, bytes: &Bytes) -> Result<Wire, Unreadable> {
        codec::decode(&self.flight.key, self.policy.schema, bytes)
    }

    fn encode(&self, wire: &Wire) -> Fill {
        let bytes = codec::encode(&self.flight.key, self.policy.schema, wire);
        Fill { bytes, version: wire.version, life: wire.life, copy: None }
    }

    /// A copy of a stored value, for no longer than it had left when the question was sent.
    fn copy(&self, wire: Wire, since: Duration, sent: Instant) -> Entry {
        let times = Times::copied(self.policy, &wire, since, sent);
        self.entry(wire.version, wire.value, times)
    }

    fn entry(&self, version: u64, value: Option<Body>, times: Times) -> Entry {
        Entry {
            version,
            schema: self.policy.schema,
            value,
            key: self.flight.key.clone(),
            times,
            epoch: self.epoch,
            refreshing: Default::default(),
            retry_after: Default::default(),
        }
    }
}
