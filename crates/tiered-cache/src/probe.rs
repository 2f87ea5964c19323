//! The consistency probe: one hit in many is checked against the source, so that a broken promise shows in a metric.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::inner::Inner;
use crate::load::Load;
use crate::{CacheKey, Entry, Policy};

/// A difference that is left after this time can't be one that is still on its way.
const PATIENCE: Duration = Duration::from_secs(2);

thread_local!(static HITS: Cell<u32> = const { Cell::new(0) });

/// Counts a hit; true from the `every`th on, until the next probe.
pub(crate) fn is_due(every: u32) -> bool {
    HITS.with(|hits| {
        hits.set(hits.get().saturating_add(1));
        every > 0 && hits.get() >= every
    })
}

impl Inner {
    /// Reads the source beside the cache, in the background, one probe at a time.
    pub(crate) fn probe(self: &Arc<Self>, key: &CacheKey, policy: &Policy, served: &Arc<Entry>, load: Load) {
        HITS.set(0);
        let (inner, key, policy, served) = (Arc::clone(self), key.clone(), policy.clone(), Arc::clone(served));
        let work = async move {
            let Ok(_alone) = inner.probing.try_acquire() else { return };
            let deadline = Instant::now() + policy.hard_timeout;
            let Ok(permit) = inner.gate.enter(deadline).await else { return };
            let loading = tokio::time::timeout_at(deadline, load()).await;
            drop(permit);
            let Ok(Ok(now)) = loading else { return };
            let mut result = "ok";
            if now.version > served.version {
                // Behind is allowed, for a while.
                tokio::time::sleep(PATIENCE).await;
                let still = inner.l1_entry(&key, &policy, Instant::now());
                if still.is_some_and(|found| !found.unverified && found.entry.version < now.version) {
                    let cache = policy.cache;
                    tracing::error!(name: "cache.stale_found", target: "tiered_cache", cache, "an old value is served");
                    result = "violation";
                }
            }
            inner.metrics.probes.inc(policy.cache, result);
        };
        self.tasks.spawn_on(self.closing.clone().run_until_cancelled_owned(work), &self.runtime);
    }
}
