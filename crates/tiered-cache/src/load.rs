//! One flight: look in the shared tiers, get the right to load, load, fill.

use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::entry::{Body, Refresh};
use crate::flight::{Arrived, Flight, Outcome};
use crate::inner::{Inner, LEASE};
use crate::metrics::outcome;
use crate::remote::{Acquired, Place, Token, traced};
use crate::stripes::Epoch;
use crate::{CacheError, Entry, Kind, LoadCx, LoadError, LoadOutcome, Loaded, Policy, Read, Remote, RemoteError, Tier};

/// Waits between looks at a key that another replica loads.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(80));

/// How long an error answers newcomers without another try.
const ERROR_MEMO: Duration = Duration::from_millis(200);
const NOTHING: &str = "the loader confirmed a value that there is none of";

/// A caller's loader. Boxed, so that the code below exists once; only a miss pays for that.
pub(crate) type Load = Box<dyn FnOnce(LoadCx) -> BoxFuture<'static, Result<LoadOutcome, LoadError>> + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read(Read),
    /// The value is still fresh, but not for long.
    Refresh,
}

pub(crate) enum Right {
    /// Fill every tier.
    Lease { token: Token },
    /// The shared tier is away: keep it here, for a short while.
    Alone,
    /// There is no shared tier.
    Only,
    /// A write is under way: store nowhere.
    Blocked,
}

pub(crate) struct Loading<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) flight: &'a Arc<Flight>,
    pub(crate) policy: &'a Policy,
    pub(crate) purpose: Purpose,
    pub(crate) place: Place,
    pub(crate) epoch: Epoch,
    pub(crate) deadline: Instant,
}

/// Ends a flight however its task ends.
struct Landed(Arc<Inner>, Arc<Flight>);

impl Drop for Landed {
    fn drop(&mut self) {
        self.1.complete(Err(CacheError::Panicked));
        self.0.flights.remove(&self.1);
        self.0.flights.landed();
    }
}

impl Inner {
    pub(crate) fn launch(self: &Arc<Self>, flight: &Arc<Flight>, policy: Policy, purpose: Purpose, load: Load) {
        let landed = Landed(Arc::clone(self), Arc::clone(flight));
        let work = async move {
            let Landed(inner, flight) = &landed;
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

    fn shared(&self) -> Option<&Arc<dyn Remote>> {
        self.remote.as_ref().filter(|_| self.fence_open(Instant::now()) && !self.breaker.is_open())
    }
}

impl<'a> Loading<'a> {
    fn new(inner: &'a Inner, flight: &'a Arc<Flight>, policy: &'a Policy, purpose: Purpose) -> Self {
        let hash = flight.key.hash();
        Self {
            inner,
            flight,
            policy,
            purpose,
            place: Place { hash, schema: policy.schema },
            epoch: inner.l1.epoch(hash),
            deadline: flight.begun + policy.load_timeout,
        }
    }

    async fn run(&self, load: Load) -> Outcome {
        let now = Instant::now();
        if let Some(entry) = self.inner.l1_entry(&self.flight.key, self.policy, now) {
            // The flight before this one may have landed since the caller looked.
            if entry.is_fresh(now) && self.purpose == Purpose::Read(Read::Bounded) {
                return Ok(Arrived { entry, tier: Tier::L1, stored: true, source_read_at: None });
            }
            self.flight.offer_stale(entry, Tier::L1);
        }
        let right = match self.inner.shared() {
            Some(remote) => match self.look(&**remote).await? {
                Step::Arrived(arrived) => return Ok(arrived),
                Step::Load(right) => right,
            },
            None if self.inner.remote.is_some() => Right::Alone,
            None => Right::Only,
        };
        let outcome = self.load(&right, load).await;
        if outcome.is_err() {
            self.release(&right).await;
        }
        self.settle(outcome.is_ok());
        outcome
    }

    /// The next replica needn't wait until the lease runs out. If this fails, it does.
    pub(crate) async fn release(&self, right: &Right) {
        if let (Right::Lease { token }, Some(remote)) = (right, &self.inner.remote) {
            drop(remote.release(self.place, *token).await);
        }
    }

    fn settle(&self, ok: bool) {
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
        let mut known = match self.timed("get", remote.get(self.place)).await {
            Ok(Some(found)) => match self.open(&found, sent) {
                Ok(arrived) => return Ok(Step::Arrived(arrived)),
                Err(known) => known,
            },
            Ok(None) => 0,
            Err(_) => return Ok(Step::Load(Right::Alone)),
        };
        let token = rand::random();
        let mut pause = POLL.0;
        loop {
            let sent = Instant::now();
            let answer = self.timed("acquire", remote.acquire(self.place, token, known)).await;
            let count = |result| self.inner.metrics.lease(self.policy.cache, result);
            match answer {
                Ok(Acquired::Granted(mark)) => {
                    count("granted");
                    return Ok(self.take_copy(token, mark).await);
                }
                Ok(Acquired::Blocked) => {
                    count("blocked");
                    return Ok(Step::Load(Right::Blocked));
                }
                Ok(Acquired::Found(found)) => match self.open(&found, sent) {
                    Ok(arrived) => return Ok(Step::Arrived(arrived)),
                    Err(seen) => known = seen,
                },
                Ok(Acquired::Held) => {
                    count("held");
                    let wake = sent + pause.mul_f32(0.5 + rand::random::<f32>());
                    if wake >= self.deadline {
                        count("wait_timeout");
                        return Err(CacheError::Timeout);
                    }
                    tokio::time::sleep_until(wake).await;
                    pause = (pause * 2).min(POLL.1);
                }
                Err(_) => return Ok(Step::Load(Right::Alone)),
            }
        }
    }

    /// An operation of the shared tier: a span, a measurement, and the breaker's lesson.
    pub(crate) async fn timed<T>(
        &self,
        op: &'static str,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let begun = Instant::now();
        let outcome = traced(op, Some(self.policy.cache), work).await;
        self.inner.metrics.operation("l2", op, begun.elapsed(), outcome.is_ok());
        self.inner.breaker.judge(outcome)
    }

    async fn load(&self, right: &Right, load: Load) -> Outcome {
        let permit = if self.policy.gated { Some(self.inner.gate.enter(self.deadline).await?) } else { None };
        let stale = self.flight.stale().map(|(stale, _)| stale);
        let cx = LoadCx { stale: stale.clone(), deadline: self.deadline };
        let begun = Instant::now();
        let loading = AssertUnwindSafe(async move { load(cx).await }).catch_unwind();
        let loading = tokio::time::timeout_at(self.deadline, loading);
        let outcome = tokio::select! {
            outcome = loading => outcome,
            () = self.renew(right) => return Err(CacheError::Closed),
            () = self.inner.stop.cancelled() => return Err(CacheError::Closed),
        };
        drop(permit);
        self.inner.metrics.loaded(self.policy.cache, begun.elapsed());
        let loaded = match outcome {
            Err(_) => return Err(CacheError::Timeout),
            Ok(Err(_)) => return Err(CacheError::Panicked),
            Ok(Ok(Err(error))) => return Err(CacheError::Load(error)),
            Ok(Ok(Ok(LoadOutcome::New(loaded)))) => loaded,
            Ok(Ok(Ok(LoadOutcome::NotModified))) => match stale {
                Some(stale) => confirmed(&stale),
                None => return Err(CacheError::Load(Box::<dyn Error + Send + Sync>::from(NOTHING).into())),
            },
        };
        Ok(self.store(right, loaded, begun).await)
    }

    /// Keeps the lease alive; never ends.
    async fn renew(&self, right: &Right) {
        if let (Right::Lease { token }, Some(remote)) = (right, &self.inner.remote) {
            loop {
                tokio::time::sleep(LEASE / 4).await;
                // Lost or not: the fill finds out. The load goes on for those who wait.
                if matches!(remote.renew(self.place, *token).await, Ok(false)) {
                    break;
                }
            }
        }
        std::future::pending::<()>().await;
    }
}

pub(crate) enum Step {
    Arrived(Arrived),
    Load(Right),
}

fn confirmed(stale: &Entry) -> Loaded {
    let value = (stale.kind == Kind::Value).then(|| Body { bytes: stale.body.clone(), etag: stale.etag.clone() });
    Loaded { value, version: stale.version, ttl: None }
}
