//! What the cache holds and what it hands out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::codec::Wire;
use crate::stripes::Epoch;
use crate::{CacheKey, Policy};

/// One cached answer of the source.
#[derive(Debug)]
pub struct Entry {
    /// The version of the row it was made from; 0 when the source has no versions.
    pub version: u64,
    /// The shape of the body, as the policy numbered it.
    pub schema: u32,
    /// `None`: the source said that there is no such thing; kept for the policy's `negative_ttl`.
    pub value: Option<Body>,
    pub(crate) key: CacheKey,
    pub(crate) times: Times,
    /// What the stripes said before the value was read; L1 serves nothing from before its kind's last flush.
    pub(crate) epoch: Epoch,
    /// Its early refresh is under way.
    pub(crate) refreshing: AtomicBool,
    /// While the source fails: nanoseconds after `times.read_at` before which no further load is tried.
    pub(crate) retry_after: AtomicU64,
}

/// The deadlines of an entry, all in this process's own monotonic time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// When the source was read, as far as known: the age counts from here.
    pub(crate) read_at: Instant,
    /// When this copy stops being fresh here: its own end, or the cap on what this process keeps.
    pub(crate) fresh_until: Instant,
    /// When the value itself stops being fresh.
    pub(crate) expires_at: Instant,
    /// Before this an early refresh is practically never drawn.
    pub(crate) refresh_from: Instant,
    /// The end of fail-safe: afterwards the entry doesn't exist.
    pub(crate) dead_at: Instant,
    /// How long the load took, for the early refresh.
    pub(crate) cost: Duration,
}

/// No copy stays in a process for longer, whatever its policy says.
const L1_CAP: Duration = Duration::from_secs(300);

impl Times {
    /// Of a value that was just loaded.
    pub(crate) fn loaded(policy: &Policy, absent: bool, begun: Instant) -> Self {
        let now = Instant::now();
        let cost = now.saturating_duration_since(begun);
        let (base, fail_safe) =
            if absent { (policy.negative_ttl, Duration::ZERO) } else { (policy.l2_ttl, policy.fail_safe) };
        let fresh = base.mul_f32(1.0 - policy.jitter.clamp(0.0, 1.0) * rand::random::<f32>());
        Self::until(policy, begun, now, now + fresh, now + fresh + fail_safe, cost)
    }

    /// Of a copy of a stored value, which was stored `since` ago when the question was `sent`.
    pub(crate) fn copied(policy: &Policy, wire: &Wire, since: Duration, sent: Instant) -> Self {
        let read_at = sent.checked_sub(wire.age + since).unwrap_or(sent);
        let (expires_at, dead_at) = (sent + wire.fresh.saturating_sub(since), sent + wire.life.saturating_sub(since));
        Self::until(policy, read_at, sent, expires_at, dead_at, wire.cost)
    }

    fn until(
        policy: &Policy,
        read_at: Instant,
        from: Instant,
        expires_at: Instant,
        dead_at: Instant,
        cost: Duration,
    ) -> Self {
        // Ten load times before the end; a draw beyond that has a chance of 1 in 22,000.
        let reach = cost.mul_f32(policy.beta.max(0.0) * 10.0);
        Self {
            read_at,
            fresh_until: expires_at.min(from + policy.l1_ttl.min(L1_CAP)),
            expires_at,
            refresh_from: expires_at.checked_sub(reach).unwrap_or(expires_at),
            dead_at,
            cost,
        }
    }
}

impl Entry {
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        now < self.times.fresh_until
    }

    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        now < self.times.dead_at
    }

    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.times.read_at)
    }

    /// What is stored of it now.
    pub(crate) fn wire(&self) -> Wire {
        let now = Instant::now();
        Wire {
            version: self.version,
            fresh: self.times.expires_at.saturating_duration_since(now),
            life: self.times.dead_at.saturating_duration_since(now),
            cost: self.times.cost,
            age: self.age(now),
            value: self.value.clone(),
        }
    }

    /// Bytes that the entry takes in L1, map and bookkeeping included.
    pub(crate) fn weight(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |value| value.bytes.len() + value.etag.len());
        value + self.key.logical().len() + size_of::<Self>() + 64
    }

    /// Notes that the source failed, so that nobody asks it again before `until`.
    pub(crate) fn throttle(&self, until: Instant) {
        let after = until.saturating_duration_since(self.times.read_at).as_nanos();
        self.retry_after.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn is_throttled(&self, now: Instant) -> bool {
        let after = self.retry_after.load(Ordering::Relaxed);
        after > 0 && self.age(now) < Duration::from_nanos(after)
    }
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// This process's memory.
    L1,
    /// Redis.
    L2,
    /// memcached.
    L3,
    /// The loader.
    Source,
}

impl Tier {
    /// The metric label and the event field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::Source => "source",
        }
    }
}

/// Why an answer past its lifetime was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StaleReason {
    /// The source was slower than the soft timeout; the load goes on.
    SourceSlow,
    /// The source failed, now or within the throttle window.
    SourceFailed,
    /// The load gate was full.
    Overloaded,
}

impl StaleReason {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SourceSlow => "source_slow",
            Self::SourceFailed => "source_failed",
            Self::Overloaded => "overloaded",
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Hit {
    /// What was found or loaded.
    pub entry: Arc<Entry>,
    /// Who answered.
    pub tier: Tier,
    /// Set when the entry is past its lifetime.
    pub stale: Option<StaleReason>,
    /// Time since the source was read.
    pub age: Duration,
    /// Fresh time left; zero if stale.
    pub ttl: Duration,
    /// The answer came from a load that another request had begun.
    pub collapsed: bool,
    /// For [`Tier::Source`]: a tier took the entry.
    pub stored: bool,
    /// Nobody can say now whether it is still right, see [`WhenBlind::Serve`](crate::WhenBlind::Serve).
    pub unverified: bool,
}

impl Hit {
    pub(crate) fn new(entry: Arc<Entry>, tier: Tier, stale: Option<StaleReason>, now: Instant) -> Self {
        let age = entry.age(now);
        let ttl = if stale.is_some() { Duration::ZERO } else { entry.times.fresh_until.saturating_duration_since(now) };
        Self { entry, tier, stale, age, ttl, collapsed: false, stored: false, unverified: false }
    }
}

/// A finished body as the loader gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// What to send.
    pub bytes: Bytes,
    /// The validator to send with it, such as `W/"v12"`.
    pub etag: Bytes,
}

/// What a loader found.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `None`: the source has no such thing; remembered for `negative_ttl`.
    pub value: Option<Body>,
    /// Grows with every change of the thing, below 2^53; 0 when there are no versions.
    pub version: u64,
}
