//! Reads: L1, then a flight, and what to answer while it flies.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tracing::Span;

use crate::entry::Refresh;
use crate::fence::REACH;
use crate::flight::{Arrived, Flight, Joined, State};
use crate::inner::Inner;
use crate::load::{Load, Purpose};
use crate::probe;
use crate::{CacheError, CacheKey, Entry, Hit, Kind, Policy, Read, StaleReason, Tier, WhenBlind};

/// A version this far above the newest that is known may have been given out since.
const LEEWAY: u64 = 1_000_000;

/// An entry of L1 that may be used.
pub(crate) struct Usable {
    pub(crate) entry: Arc<Entry>,
    /// Nobody can say now whether it is still right.
    pub(crate) unverified: bool,
}

impl Usable {
    /// An answer, unless the entry is past its life and the source may be asked again.
    fn answer(self, now: Instant) -> Option<Hit> {
        let stale = if self.entry.is_fresh(now) {
            None
        } else if self.entry.is_throttled(now) {
            Some(StaleReason::SourceFailed)
        } else {
            return None;
        };
        let mut hit = Hit::new(self.entry, Tier::L1, stale, now);
        hit.unverified = self.unverified;
        Some(hit)
    }
}

/// Whether somebody should begin to refresh a fresh entry (XFetch): the likelier the nearer its end, counted in
/// times that the load takes. Drawn per request, so that a busy key is refreshed in time.
pub(crate) fn is_due(entry: &Entry, policy: &Policy, now: Instant) -> bool {
    if now < entry.times.refresh_from {
        return false;
    }
    let reach = entry.times.cost.mul_f32(policy.beta.max(0.0));
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

#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) read: Read,
    pub(crate) begun: Instant,
}

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
            Read::Bounded => true,
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
    /// L1 alone; `None` also when the caller should go to `get_or_load`, to begin an early refresh or a probe.
    pub(crate) fn peek(&self, key: &CacheKey, policy: &Policy, now: Instant) -> Option<Hit> {
        let hit = self.l1_entry(key, policy, now)?.answer(now)?;
        let due = || is_due(&hit.entry, policy, now) || probe::is_due(self.probe_every);
        if hit.stale.is_none() && due() {
            return None;
        }
        self.hit(policy, &hit, Read::Bounded);
        Some(hit)
    }

    fn hit(&self, policy: &Policy, hit: &Hit, read: Read) {
        tracing::debug!(name: "cache_hit", target: "tiered_cache", { cache.tier = "l1", cache = policy.cache }, "cache_hit");
        self.metrics.served(policy.cache, hit, read);
    }

    pub(crate) fn lookup(&self, key: &CacheKey, ask: Ask<'_>) -> Option<Hit> {
        let found = self.l1_entry(key, ask.policy, ask.begun)?;
        if let Read::Version(wanted) = ask.read
            && (found.entry.version < wanted || found.unverified)
        {
            return None;
        }
        let hit = found.answer(ask.begun)?;
        self.hit(ask.policy, &hit, ask.read);
        Some(hit)
    }

    /// The key's entry in L1 if it may be used now, fresh or not.
    pub(crate) fn l1_entry(&self, key: &CacheKey, policy: &Policy, now: Instant) -> Option<Usable> {
        let entry = self.l1.get(key.hash())?;
        if entry.key != *key || entry.schema != policy.schema {
            return None;
        }
        if !entry.is_alive(now) {
            self.l1.expire(key.hash());
            return None;
        }
        self.usable(entry, now)
    }

    fn usable(&self, entry: Arc<Entry>, now: Instant) -> Option<Usable> {
        let unverified = !self.fence.is_open(now);
        let serves = !unverified || self.when_blind == WhenBlind::Serve;
        serves.then_some(Usable { entry, unverified })
    }

    /// With the fence shut nobody hears of invalidations, so an old flight may carry an old value.
    fn may_join(&self, flight: &Flight, ask: Ask<'_>) -> bool {
        self.fence.is_open(ask.begun) || ask.begun.saturating_duration_since(flight.begun) < REACH
    }

    /// Refuses to look for a version that is far beyond anything that the source has given out.
    pub(crate) fn is_out_of_reach(&self, read: Read) -> Option<CacheError> {
        let found = self.newest.load(Ordering::Relaxed);
        match read {
            Read::Version(wanted) if found > 0 && wanted > found.saturating_add(LEEWAY) => {
                Some(CacheError::VersionNotReached { found })
            }
            _ => None,
        }
    }

    pub(crate) async fn miss(self: &Arc<Self>, key: &CacheKey, ask: Ask<'_>, load: Load) -> Result<Hit, CacheError> {
        if self.closing.is_cancelled() {
            return Err(CacheError::Closed);
        }
        if let Some(error) = self.is_out_of_reach(ask.read) {
            return Err(error);
        }
        let mut load = Some(load);
        loop {
            // A load that outlives its caller still belongs to the caller's trace.
            let span = || tracing::info_span!(target: "tiered_cache", "cache_load", cache = ask.policy.cache);
            let (flight, led) = match self.flights.join(key, ask.policy.schema, |f| self.may_join(f, ask), span) {
                Joined::Follow(flight) => {
                    Span::current().follows_from(&flight.span);
                    (flight, false)
                }
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
                Joined::Refused => return Err(CacheError::overloaded()),
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
    pub(crate) fn refresh(self: &Arc<Self>, key: &CacheKey, policy: &Policy, entry: &Entry, load: Load) {
        if self.closing.is_cancelled() || !entry.refresh_step(Refresh::Due, Refresh::Running) {
            return;
        }
        // Nobody waits for it: a trace of its own, linked to the request that began it, if that is traced.
        let (cache, request) = (policy.cache, Span::current());
        let linked = || tracing::info_span!(target: "tiered_cache::root", parent: None, "cache_refresh", cache);
        let span = || if request.is_none() { Span::none() } else { linked().follows_from(&request).clone() };
        if let Joined::Lead(flight) = self.flights.join(key, policy.schema, |_| true, span) {
            self.launch(&flight, policy.clone(), Purpose::Refresh, load);
        }
    }

    async fn wait(&self, flight: &Arc<Flight>, ask: Ask<'_>) -> Result<Landing, CacheError> {
        let mut state = flight.watch();
        let soft = ask.begun + ask.policy.soft_timeout;
        let hard = ask.begun + ask.policy.hard_timeout;
        let mut impatient = flight.slow.load(Ordering::Relaxed);
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
                    flight.slow.store(true, Ordering::Relaxed);
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
        if flight.is_detached() || !entry.is_alive(now) {
            return None;
        }
        let found = self.usable(entry, now)?;
        let mut hit = Hit::new(found.entry, tier, Some(reason), now);
        hit.unverified = found.unverified;
        Some(hit)
    }
}
