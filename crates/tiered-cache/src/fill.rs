//! Entries on their way up (copies from a shared tier) and down (fills after a load).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::codec::{self, Wire};
use crate::entry::{Body, Times};
use crate::flight::Arrived;
use crate::inner::DEGRADED;
use crate::load::{Loading, Purpose, Right, Step};
use crate::remote::{Fill, Filled, Found, Mark, Token};
use crate::{Entry, Kind, Loaded, Read, Tier};

/// No copy stays in a process for longer, whatever its policy says.
const L1_CAP: Duration = Duration::from_secs(300);

impl Loading<'_> {
    /// Makes an answer of a stored value; else its stamp, so that a newer one can be told from it.
    pub(crate) fn open(&self, found: &Found, sent: Instant) -> Result<Arrived, u64> {
        let key = &self.flight.key;
        let wire = codec::decode(key, self.policy.schema, &found.bytes).map_err(|error| {
            tracing::warn!(name: "cache.unreadable", target: "tiered_cache", cache = self.policy.cache, error = error.as_str(), "unreadable entry");
            self.inner.metrics.codec_error(self.policy.cache, error.as_str());
            found.stamp
        })?;
        let entry = Arc::new(self.copy(wire, found.age, sent));
        let now = Instant::now();
        if !entry.is_alive(now) {
            return Err(found.stamp);
        }
        if !self.wants(&entry) || now >= entry.times.expires_at {
            if self.flight.stale().is_none() {
                self.flight.offer_stale(entry, Tier::L2);
            }
            return Err(found.stamp);
        }
        let stored = self.inner.l1.insert(Arc::clone(&entry), self.epoch);
        tracing::debug!(name: "cache_hit", target: "tiered_cache", { cache.tier = "l2", cache = self.policy.cache }, "cache_hit");
        Ok(Arrived { entry, tier: Tier::L2, stored, source_read_at: None })
    }

    /// Whether a stored value answers what this flight flies for.
    fn wants(&self, entry: &Entry) -> bool {
        match self.purpose {
            Purpose::Read(Read::Bounded | Read::Shared) => true,
            Purpose::Read(Read::Version(wanted)) => entry.version >= wanted,
            Purpose::Read(Read::Source) => false,
            // What another replica refreshed since, but not a copy of what this one set out to replace: the two
            // differ by the time that the fill took.
            Purpose::Refresh => self
                .flight
                .stale()
                .is_none_or(|(stale, _)| entry.times.expires_at > stale.times.expires_at + Duration::from_millis(250)),
        }
    }

    /// A copy of a stored value, for no longer than it had left when the question was sent.
    fn copy(&self, wire: Wire, since: Duration, sent: Instant) -> Entry {
        let age = wire.age + since;
        let expires_at = sent + wire.fresh.saturating_sub(since);
        let times = Times {
            read_at: sent.checked_sub(age).unwrap_or(sent),
            fresh_until: expires_at.min(sent + self.l1_ttl()),
            expires_at,
            refresh_from: self.refresh_from(expires_at, wire.cost),
            dead_at: sent + wire.life.saturating_sub(since),
            own_until: None,
            cost: wire.cost,
        };
        self.entry(wire.version, wire.kind, wire.etag, wire.body, times)
    }

    /// Ten load times before the end; a draw beyond that has a chance of 1 in 22,000.
    fn refresh_from(&self, expires_at: Instant, cost: Duration) -> Instant {
        let reach = cost.mul_f32(self.policy.beta.max(0.0) * 10.0);
        expires_at.checked_sub(reach).unwrap_or(expires_at)
    }

    fn l1_ttl(&self) -> Duration {
        self.policy.l1_ttl.min(L1_CAP)
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

    /// Fills the tiers that may have the value, and makes the answer.
    pub(crate) async fn store(&self, right: &Right, loaded: Loaded, begun: Instant) -> Arrived {
        let policy = self.policy;
        let (kind, body) = match loaded.value {
            Some(body) => (Kind::Value, body),
            None => (Kind::NotFound, Body { bytes: Bytes::new(), etag: Bytes::new() }),
        };
        let now = Instant::now();
        let cost = now.saturating_duration_since(begun);
        let base = if kind == Kind::NotFound { policy.negative_ttl } else { policy.l2_ttl };
        let jitter = 1.0 - policy.jitter.clamp(0.0, 1.0) * rand::random::<f32>();
        let mut fresh = loaded.ttl.unwrap_or(base).mul_f32(jitter);
        let mut life = fresh + if kind == Kind::NotFound { Duration::ZERO } else { policy.fail_safe };
        match right {
            Right::Alone => {
                // Somebody may write without this process ever hearing of it.
                let until = begun + DEGRADED;
                fresh = fresh.min(until.saturating_duration_since(now));
                life = fresh;
            }
            Right::Only => fresh = fresh.min(self.l1_ttl()),
            Right::Lease { .. } | Right::Blocked => {}
        }
        let times = Times {
            read_at: begun,
            fresh_until: now + fresh.min(self.l1_ttl()),
            expires_at: now + fresh,
            refresh_from: self.refresh_from(now + fresh, cost),
            dead_at: now + life,
            // What was loaded while the bus was heard may be old once it is silent: a process that was stopped for a
            // while would serve it although Redis can be reached.
            own_until: matches!(right, Right::Alone).then(|| begun + DEGRADED),
            cost,
        };
        let entry = Arc::new(self.entry(loaded.version, kind, body.etag, body.bytes, times));
        let fits = entry.body.len() <= policy.max_bytes;
        if !fits {
            self.inner.metrics.fill(policy.cache, "all", "too_big");
            self.release(right).await;
        }
        let kept = fits
            && match right {
                Right::Lease { token } => self.fill(*token, &entry, fresh, life).await,
                Right::Alone | Right::Only => true,
                Right::Blocked => false,
            };
        let kept_here = kept && self.inner.l1.insert(Arc::clone(&entry), self.epoch);
        if kept {
            self.inner.metrics.fill(policy.cache, "l1", if kept_here { "stored" } else { "epoch" });
        }
        let stored = kept_here || (kept && matches!(right, Right::Lease { .. }));
        if stored {
            tracing::debug!(name: "cache_set", target: "tiered_cache", cache = policy.cache, "cache_set");
        }
        Arrived { entry, tier: Tier::Source, stored, source_read_at: Some(begun) }
    }

    /// Uses L3's copy if Redis vouches for it; else the source is to be asked.
    pub(crate) async fn take_copy(&self, token: Token, mark: Mark) -> Step {
        let load = Step::Load(Right::Lease { token });
        let Some(l3) = &self.inner.l3 else { return load };
        let sent = Instant::now();
        let Some((bytes, since)) = l3.get(self.place, &mark).await else { return load };
        let Ok(wire) = codec::decode(&self.flight.key, self.policy.schema, &bytes) else {
            self.inner.metrics.codec_error(self.policy.cache, "l3");
            return load;
        };
        // Fill L2 for what is left: another's stamp will count from then.
        let left = |whole: Duration| whole.saturating_sub(since);
        let entry = Arc::new(self.copy(wire.clone(), since, sent));
        if !self.wants(&entry) || entry.version < mark.floor || left(wire.fresh).is_zero() {
            return load;
        }
        let (fresh, life) = (left(wire.fresh), left(wire.life));
        let wire = Wire { fresh, life, age: wire.age + since, ..wire };
        if self.fill_l2(token, &wire).await.is_none() {
            // Invalidated meanwhile: it answers nobody, and the lease is gone.
            return Step::Load(Right::Blocked);
        }
        let stored = self.inner.l1.insert(Arc::clone(&entry), self.epoch);
        tracing::debug!(name: "cache_hit", target: "tiered_cache", { cache.tier = "l3", cache = self.policy.cache }, "cache_hit");
        Step::Arrived(Arrived { entry, tier: Tier::L3, stored, source_read_at: None })
    }

    /// Fills L2 and then L3; false when the value must not be kept anywhere.
    async fn fill(&self, token: Token, entry: &Entry, fresh: Duration, life: Duration) -> bool {
        let wire = Wire {
            kind: entry.kind,
            version: entry.version,
            fresh,
            life,
            cost: entry.times.cost,
            age: entry.times.cost,
            etag: entry.etag.clone(),
            body: entry.body.clone(),
        };
        let Some((bytes, filled)) = self.fill_l2(token, &wire).await else { return false };
        if let (Some(l3), Some((generation, stamp)), Kind::Value) = (&self.inner.l3, filled, wire.kind) {
            let ttl = self.policy.l3_ttl.min(fresh);
            let kept = l3.set(self.place, generation, stamp, &bytes, ttl).await;
            self.inner.metrics.fill(self.policy.cache, "l3", if kept { "stored" } else { "error" });
        }
        true
    }

    /// What was stored, and under which generation and stamp, as far as Redis answered; `None` when it refused.
    async fn fill_l2(&self, token: Token, wire: &Wire) -> Option<(Bytes, Option<(u64, u64)>)> {
        let bytes = codec::encode(&self.flight.key, self.policy.schema, wire);
        let fill = Fill { bytes: bytes.clone(), version: wire.version, life: wire.life };
        let remote = self.inner.remote.as_ref()?;
        let (result, kept) = match self.timed("fill", remote.fill(self.place, token, fill)).await {
            Ok(Filled::Stored { generation, stamp }) => ("stored", Some((bytes, Some((generation, stamp))))),
            Ok(Filled::Lost) => ("lost", None),
            Ok(Filled::Older) => ("older", None),
            // Whether it arrived or not: the bus and the stripes watch over this process's copy.
            Err(_) => ("error", Some((bytes, None))),
        };
        self.inner.metrics.fill(self.policy.cache, "l2", result);
        kept
    }
}
