//! Reads: L1, then a flight, and what to answer while it flies.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tracing::Span;

use crate::fence::REACH;
use crate::flight::{Arrived, Flight, Joined, State};
use crate::inner::Inner;
use crate::load::{Load, Purpose};
use crate::{CacheError, CacheKey, Entry, Hit, Policy, Read, StaleReason, Tier, WhenBlind};

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
    if now < entry.times.refresh_from || entry.refreshing.load(Ordering::Relaxed) || entry.is_throttled(now) {
        return false;
    }
    // 1 - [0, 1) is never 0.
    let draw = -(1.0 - rand::random::<f32>()).ln();
    now + entry.times.cost.mul_f32(policy.beta.max(0.0) * draw) >= entry.times.expires_at
}

#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) read: Read,
    pub(crate) begun: Instant,
}

/// What a flight brought a caller.
enum Brought {
    Arrived(Arrived),
    /// A value past its life, in place of one that can't be had.
    StandIn(Hit),
}

impl Ask<'_> {
    fn accepts(&self, arrived: &Arrived) -> bool {
        match self.read {
            Read::Bounded => true,
            // "Not found" has no version of its own: only a look at the source after the question counts.
            Read::Version(wanted) => {
                arrived.entry.version >= wanted || (arrived.entry.value.is_none() && self.is_before(arrived))
            }
        }
    }

    /// The source was read after the question, so that asking again won't help.
    fn is_before(&self, arrived: &Arrived) -> bool {
        arrived.source_read_at.is_some_and(|at| at >= self.begun)
    }
}

impl Inner {
    /// L1 alone.
    pub(crate) fn lookup(&self, key: &CacheKey, ask: Ask<'_>) -> Option<Hit> {
        let hit = self.find(key, ask)?;
        let cache = ask.policy.cache;
        tracing::debug!(name: "cache_hit", target: "tiered_cache", { cache.tier = "l1", cache }, "cache_hit");
        self.metrics.served(cache, &hit, ask.read);
        Some(hit)
    }

    fn find(&self, key: &CacheKey, ask: Ask<'_>) -> Option<Hit> {
        let found = self.l1_entry(key, ask.policy, ask.begun)?;
        let promised = match ask.read {
            Read::Bounded => true,
            Read::Version(wanted) => found.entry.version >= wanted && !found.unverified,
        };
        if promised { found.answer(ask.begun) } else { None }
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
    fn is_in_reach(&self, read: Read) -> Result<(), CacheError> {
        let found = self.newest.load(Ordering::Relaxed);
        match read {
            Read::Version(wanted) if found > 0 && wanted > found.saturating_add(LEEWAY) => {
                Err(CacheError::VersionNotReached { found })
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn miss(self: &Arc<Self>, key: &CacheKey, ask: Ask<'_>, load: Load) -> Result<Hit, CacheError> {
        if self.closing.is_cancelled() {
            return Err(CacheError::Closed);
        }
        self.is_in_reach(ask.read)?;
        loop {
            // A load that outlives its caller still belongs to the caller's trace.
            let span = || tracing::info_span!(target: "tiered_cache", "cache_load", cache = ask.policy.cache);
            match self.flights.join(key, ask.policy.schema, |f| self.may_join(f, ask), span) {
                Joined::Refused => return Err(CacheError::overloaded()),
                Joined::Lead(flight) => {
                    self.launch(&flight, ask.policy.clone(), Purpose::Read(ask.read), load);
                    return self.land(self.wait(&flight, ask).await?, ask, false);
                }
                Joined::Follow(flight) => {
                    Span::current().follows_from(&flight.span);
                    match self.wait(&flight, ask).await? {
                        // It was begun before this caller asked, and its answer is too old.
                        Brought::Arrived(old) if !ask.accepts(&old) && !ask.is_before(&old) => {
                            self.flights.remove(&flight);
                        }
                        landed => return self.land(landed, ask, true),
                    }
                }
            }
        }
    }

    fn land(&self, landed: Brought, ask: Ask<'_>, collapsed: bool) -> Result<Hit, CacheError> {
        let mut hit = match landed {
            Brought::StandIn(hit) => hit,
            Brought::Arrived(arrived) if ask.accepts(&arrived) => {
                let stored = arrived.stored;
                Hit { stored, ..Hit::new(arrived.entry, arrived.tier, None, Instant::now()) }
            }
            Brought::Arrived(arrived) => {
                return Err(CacheError::VersionNotReached { found: arrived.entry.version });
            }
        };
        hit.collapsed = collapsed;
        self.metrics.served(ask.policy.cache, &hit, ask.read);
        Ok(hit)
    }

    /// Begins to load a value that is still fresh, unless it is being loaded already.
    pub(crate) fn refresh(self: &Arc<Self>, key: &CacheKey, policy: &Policy, entry: &Entry, load: Load) {
        if self.closing.is_cancelled() || entry.refreshing.swap(true, Ordering::AcqRel) {
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

    async fn wait(&self, flight: &Arc<Flight>, ask: Ask<'_>) -> Result<Brought, CacheError> {
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
                Some(Ok(arrived)) => return Ok(Brought::Arrived(arrived)),
                Some(Err(error @ CacheError::Overloaded { .. })) => (Some(error), StaleReason::Overloaded),
                Some(Err(error)) => (Some(error), StaleReason::SourceFailed),
                None => (None, StaleReason::SourceSlow),
            };
            let stale = if takes_stale { seen.stale } else { None };
            match (stale.and_then(|(entry, tier)| self.stand_in(flight, entry, tier, reason)), error) {
                (Some(hit), _) => return Ok(Brought::StandIn(hit)),
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
