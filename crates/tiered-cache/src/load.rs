//! One flight: look in the shared tiers, get the right to load, load, fill.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::codec::{self, Wire};
use crate::entry::{Refresh, Times};
use crate::flight::{Arrived, Flight, Outcome};
use crate::inner::Inner;
use crate::metrics::outcome;
use crate::remote::{Acquired, Fill, Filled, Found, LEASE, Mark, Place, Token, traced};
use crate::stripes::Epoch;
use crate::{CacheError, Entry, Kind, LoadError, Loaded, Policy, Read, Remote, RemoteError, Tier};

/// Waits between looks at a key that another replica loads.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(80));
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
enum Right {
    /// In every tier.
    Lease(Token),
    /// Here alone: there is no shared tier, or it can't be used.
    Here,
    /// Nowhere: it changed meanwhile.
    Nowhere,
}

/// What a look into the shared tiers led to.
enum Step {
    Arrived(Arrived),
    Load(Right),
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

    /// The shared tier, while what it holds can be judged and it takes writes.
    fn usable_remote(&self) -> Option<&Arc<dyn Remote>> {
        let usable = self.fence.is_open(Instant::now()) && self.remote_state.is_well();
        self.remote.as_ref().filter(|_| usable)
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
        let right = match self.inner.usable_remote() {
            Some(remote) => match self.look(&**remote).await? {
                Step::Arrived(arrived) => return Ok(arrived),
                Step::Load(right) => right,
            },
            None => Right::Here,
        };
        let outcome = self.load(right, load).await;
        if outcome.is_err() {
            self.release(right).await;
        }
        self.learn(outcome.is_ok());
        outcome
    }

    /// Ends the early refresh that this was, and asks a source that failed no more for a while.
    fn learn(&self, ok: bool) {
        if self.purpose == Purpose::Refresh {
            self.inner.metrics.refreshed(self.policy.cache, outcome(ok));
        }
        let Some((stale, _)) = self.flight.stale() else { return };
        if ok {
            // Not replaced after all, perhaps: the next one may try again.
            stale.refresh_step(Refresh::Running, Refresh::Idle);
            return;
        }
        stale.throttle(Instant::now() + self.policy.fail_safe_throttle);
        self.inner.l1.insert(stale, self.epoch);
    }

    /// Reads the shared tier and, on a miss, gets the right to load or what another replica loaded meanwhile.
    async fn look(&self, remote: &dyn Remote) -> Result<Step, CacheError> {
        let sent = Instant::now();
        let mut known = Bytes::new();
        match self.timed("get", remote.get(self.place)).await {
            Ok(Some(found)) => match self.open(&found, sent) {
                Opened::Usable(arrived) => return Ok(Step::Arrived(arrived)),
                Opened::Useless => known = found.stamp,
                Opened::Foreign => self.remove(remote).await,
            },
            Ok(None) => {}
            Err(RemoteError::WrongType) => {
                self.unreadable("type");
                self.remove(remote).await;
            }
            Err(_) => return Ok(Step::Load(Right::Here)),
        }
        let token = rand::random();
        let mut pause = POLL.0;
        loop {
            let sent = Instant::now();
            let answer = self.timed("acquire", remote.acquire(self.place, token, &known)).await;
            let count = |result| self.inner.metrics.lease(self.policy.cache, result);
            match answer {
                Ok(Acquired::Granted(mark)) => {
                    count("granted");
                    return Ok(self.take_copy(token, &mark).await);
                }
                Ok(Acquired::Found(found)) => {
                    match self.open(&found, sent) {
                        Opened::Usable(arrived) => return Ok(Step::Arrived(arrived)),
                        Opened::Useless => {}
                        Opened::Foreign => self.remove(remote).await,
                    }
                    known = found.stamp;
                }
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
            pause = (pause * 2).min(POLL.1);
        }
    }

    /// An operation of the shared tier: a span, a measurement, and the breaker's lesson.
    async fn timed<T>(
        &self,
        op: &'static str,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let begun = Instant::now();
        let outcome = traced(op, Some(self.policy.cache), work).await;
        self.inner.metrics.operation("l2", op, begun.elapsed(), outcome.is_ok());
        match outcome {
            // An answer, if not the one that was hoped for.
            Err(RemoteError::WrongType) => Err(RemoteError::WrongType),
            other => self.inner.remote_state.learn(other),
        }
    }

    async fn load(&self, right: Right, load: Load) -> Outcome {
        let permit = if self.policy.gated { Some(self.inner.gate.enter(self.deadline).await?) } else { None };
        let begun = Instant::now();
        let loading = AssertUnwindSafe(async move { load().await }).catch_unwind();
        let loading = tokio::time::timeout_at(self.deadline, loading);
        let outcome = tokio::select! {
            outcome = loading => outcome,
            () = self.renew(right) => return Err(CacheError::Closed),
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

    /// Keeps the lease alive; never ends.
    async fn renew(&self, right: Right) {
        if let (Right::Lease(token), Some(remote)) = (right, &self.inner.remote) {
            loop {
                tokio::time::sleep(LEASE / 4).await;
                // Lost or not: the fill finds out. The load goes on for those who wait.
                if matches!(remote.renew(self.place, token).await, Ok(false)) {
                    break;
                }
            }
        }
        std::future::pending::<()>().await;
    }

    /// The next replica needn't wait until the lease runs out. If this fails, it does.
    async fn release(&self, right: Right) {
        if let (Right::Lease(token), Some(remote)) = (right, &self.inner.remote) {
            drop(remote.release(self.place, token).await);
        }
    }

    /// Fills the tiers that may have the value, and makes the answer.
    async fn store(&self, right: Right, loaded: Loaded, begun: Instant) -> Arrived {
        let policy = self.policy;
        let kind = if loaded.value.is_some() { Kind::Value } else { Kind::NotFound };
        let times = Times::loaded(policy, kind, begun);
        let (etag, body) = loaded.value.map(|body| (body.etag, body.bytes)).unwrap_or_default();
        let entry = Arc::new(self.entry(loaded.version, kind, etag, body, times));
        let kept = if let Some(why) = self.unfit(&entry) {
            self.inner.metrics.fill(policy.cache, "all", why);
            self.release(right).await;
            false
        } else {
            match right {
                Right::Lease(token) => self.fill(token, &entry).await,
                Right::Here => true,
                Right::Nowhere => false,
            }
        };
        let kept_here = kept && self.inner.l1.insert(Arc::clone(&entry), self.epoch);
        if kept {
            self.inner.metrics.fill(policy.cache, "l1", if kept_here { "stored" } else { "epoch" });
        }
        let stored = kept_here || (kept && matches!(right, Right::Lease(_)));
        if stored {
            tracing::debug!(name: "cache_set", target: "tiered_cache", cache = policy.cache, "cache_set");
        }
        Arrived { entry, tier: Tier::Source, stored, source_read_at: Some(begun) }
    }

    /// Why a loaded value is stored nowhere.
    fn unfit(&self, entry: &Entry) -> Option<&'static str> {
        if entry.body.len() > self.policy.max_bytes {
            return Some("too_big");
        }
        // The source is behind its own log: a lagging replica of it was asked.
        self.inner.recent.knows_newer(self.place.hash, entry.version).then_some("older")
    }

    /// Fills L2 and then L3; false when the value must not be kept anywhere.
    async fn fill(&self, token: Token, entry: &Entry) -> bool {
        let wire = Wire::of(entry, Instant::now());
        // A copy in L3 goes by a name of its own, which Redis knows for as long as the copy may be used.
        let ttl = self.policy.l3_ttl.min(wire.fresh);
        let copied = self.inner.l3.is_some() && wire.kind == Kind::Value;
        let copy = copied.then(|| (rand::random_range(1..=i64::MAX as u64), ttl));
        let (bytes, filled) = self.fill_l2(token, &wire, copy).await;
        match filled {
            Ok(Filled::Stored { stamp }) => {
                if let (Some(l3), Some((copy, ttl))) = (&self.inner.l3, copy) {
                    let kept = l3.set(self.place, copy, stamp, &bytes, ttl).await;
                    self.inner.metrics.fill(self.policy.cache, "l3", if kept { "stored" } else { "error" });
                }
                true
            }
            Ok(Filled::Lost | Filled::Older) => false,
            // Whether it arrived or not: the log and the stripes watch over this process's copy.
            Err(_) => true,
        }
    }

    async fn fill_l2(
        &self,
        token: Token,
        wire: &Wire,
        copy: Option<(u64, Duration)>,
    ) -> (Bytes, Result<Filled, RemoteError>) {
        let bytes = codec::encode(&self.flight.key, self.policy.schema, wire);
        let Some(remote) = &self.inner.remote else { return (bytes, Err(RemoteError::Unavailable)) };
        let fill = Fill { bytes: bytes.clone(), version: wire.version, life: wire.life, copy };
        let filled = self.timed("fill", remote.fill(self.place, token, fill)).await;
        let result = match filled {
            Ok(Filled::Stored { .. }) => "stored",
            Ok(Filled::Lost) => "lost",
            Ok(Filled::Older) => "older",
            Err(_) => "error",
        };
        self.inner.metrics.fill(self.policy.cache, "l2", result);
        (bytes, filled)
    }

    /// Uses L3's copy if Redis vouches for it; else the source is to be asked.
    async fn take_copy(&self, token: Token, mark: &Mark) -> Step {
        let load = Step::Load(Right::Lease(token));
        let Some(l3) = &self.inner.l3 else { return load };
        let sent = Instant::now();
        let Some((bytes, since)) = l3.get(self.place, mark).await else { return load };
        let Ok(wire) = codec::decode(&self.flight.key, self.policy.schema, &bytes) else {
            self.unreadable("l3");
            return load;
        };
        // What L2 gets counts from its own stamp.
        let wire = wire.after(since);
        let entry = Arc::new(self.copy(wire.clone(), Duration::ZERO, sent));
        if !self.wants(&entry) || wire.fresh.is_zero() || !self.is_right(entry.version, mark.cleaned) {
            return load;
        }
        if let (_, Ok(Filled::Lost | Filled::Older)) = self.fill_l2(token, &wire, None).await {
            // It changed meanwhile: it answers nobody, and the lease is gone.
            return Step::Load(Right::Nowhere);
        }
        Step::Arrived(self.promote(entry, Tier::L3))
    }

    /// Makes an answer of a stored value, if it can be read, is right and is what this flight flies for.
    fn open(&self, found: &Found, sent: Instant) -> Opened {
        if !found.stamp.iter().all(u8::is_ascii_digit) {
            self.unreadable("stamp");
            return Opened::Foreign;
        }
        let wire = match codec::decode(&self.flight.key, self.policy.schema, &found.bytes) {
            Ok(wire) => wire,
            Err(error) => {
                self.unreadable(error.as_str());
                return Opened::Foreign;
            }
        };
        if !self.is_right(wire.version, found.cleaned) {
            return Opened::Useless;
        }
        let entry = Arc::new(self.copy(wire, found.age, sent));
        let now = Instant::now();
        if !entry.is_alive(now) {
            return Opened::Useless;
        }
        if !self.wants(&entry) || now >= entry.times.expires_at {
            if self.flight.stale().is_none() {
                self.flight.offer_stale(entry, Tier::L2);
            }
            return Opened::Useless;
        }
        Opened::Usable(self.promote(entry, Tier::L2))
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

    fn unreadable(&self, why: &'static str) {
        tracing::debug!(name: "cache.unreadable", target: "tiered_cache", cache = self.policy.cache, error = why, "unreadable entry");
        self.inner.metrics.codec_error(self.policy.cache, why);
    }

    /// Makes room for a value that can be read. If this fails, the next fill does it.
    async fn remove(&self, remote: &dyn Remote) {
        drop(self.timed("remove", remote.remove(self.place)).await);
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

    /// A copy of a stored value, for no longer than it had left when the question was sent.
    fn copy(&self, wire: Wire, since: Duration, sent: Instant) -> Entry {
        let times = Times::copied(self.policy, &wire, since, sent);
        self.entry(wire.version, wire.kind, wire.etag, wire.body, times)
    }

    fn entry(&self, version: u64, kind: Kind, etag: Bytes, body: Bytes, times: Times) -> Entry {
        Entry {
            version,
            schema: self.policy.schema,
            kind,
            etag,
            body,
            key: self.flight.key.clone(),
            times,
            epoch: self.epoch,
            refresh: Default::default(),
            retry_after: Default::default(),
        }
    }
}

/// What a stored value is good for.
enum Opened {
    Usable(Arrived),
    /// It is old, about to end, or not new enough.
    Useless,
    /// It can't be read.
    Foreign,
}
