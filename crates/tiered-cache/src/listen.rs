//! The background tasks: the bus and its fence, the outbox, the breaker's way back.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::flight::lock;
use crate::inner::{FENCE, Inner};
use crate::remote::{Batch, Bus, Phase};
use crate::{LoadError, outbox};

const OUTBOX_EVERY: Duration = Duration::from_secs(1);
const OUTBOX_ROWS: usize = 100;
const OUTBOX_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failure that may come at once, so that it isn't repeated at once.
const BUS_PAUSE: Duration = Duration::from_millis(20);
const BREAKER_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn bus(inner: Weak<Inner>, mut bus: Box<dyn Bus>) {
    let (mut reopening, mut heard, mut lost) = (Reopening::Unasked, false, false);
    loop {
        let read = bus.next().await;
        let Some(inner) = inner.upgrade() else { return };
        match read {
            Ok(batch) => {
                if std::mem::take(&mut lost) {
                    inner.metrics.bus_reconnects.inc();
                }
                heard = true;
                inner.apply(&batch, &mut reopening).await;
            }
            Err(error) => {
                lost = heard;
                inner.metrics.bus_errors.inc();
                tracing::debug!(name: "cache.bus_unread", target: "tiered_cache", %error, "the bus can't be read");
                drop(inner);
                tokio::time::sleep(BUS_PAUSE).await;
            }
        }
    }
}

/// Delivers what writes without Redis left in the outbox, of any replica.
pub(crate) async fn outbox(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(OUTBOX_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.drain().await {
            tracing::debug!(name: "cache.outbox_undrained", target: "tiered_cache", %error, "the outbox can't be drained");
        }
    }
}

pub(crate) async fn breaker(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(BREAKER_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        let Some(remote) = &inner.remote else { return };
        if !inner.breaker.takes_probe(Instant::now()) {
            continue;
        }
        // The bus must be caught up and the outbox empty: otherwise L2 holds what should have been removed.
        let well = inner.fence_open(Instant::now()) && remote.ping().await.is_ok() && inner.drain().await.is_ok();
        inner.breaker.probed(well, Instant::now());
    }
}

/// How the outbox answered since the fence was shut.
enum Reopening {
    Unasked,
    Refused,
    /// Empty at that time; soon that says nothing any more.
    Drained(Instant),
}

impl Inner {
    /// An own invalidation came back.
    fn echoed(&self, hashes: &[u128]) {
        let mut echoes = lock(&self.echoes);
        let sent = echoes.iter().position(|(hash, _)| hashes.first() == Some(hash)).and_then(|at| echoes.remove(at));
        if let Some((_, sent)) = sent {
            self.metrics.visible.observe(sent.elapsed().as_secs_f64());
        }
    }

    async fn apply(&self, batch: &Batch, reopening: &mut Reopening) {
        if let Some(gap) = batch.gap {
            // Clear after the position was taken, detach after clearing: nothing from before survives.
            self.l1.clear();
            self.flights.detach_all();
            self.metrics.bus_gap(gap.as_str());
        }
        if !batch.notices.is_empty() {
            let others = batch.notices.iter().filter(|notice| notice.origin != self.origin);
            let causes: BTreeSet<&str> =
                others.map(|notice| &*notice.cause).filter(|cause| !cause.is_empty()).collect();
            // Worth a trace when what caused it is in one.
            let linked = || tracing::info_span!(target: "tiered_cache::linked", parent: None, "cache_bus", entries = batch.notices.len());
            let span = if causes.is_empty() { Span::none() } else { linked() };
            causes.into_iter().for_each(|cause| self.links.1(&span, cause));
            let _entered = span.entered();
            for notice in &batch.notices {
                if notice.origin == self.origin {
                    self.echoed(&notice.hashes);
                } else {
                    self.forget(&notice.hashes);
                }
            }
        }
        if !batch.caught_up {
            return;
        }
        // After a silence other replicas may have written without Redis: first what they left in the outbox.
        // This read is too old by then, the next one opens the fence.
        let drained = matches!(*reopening, Reopening::Drained(at) if batch.sent_at < at + FENCE);
        if !drained && self.outbox.is_some() && !self.fence_open(Instant::now()) {
            match self.drain().await {
                Ok(()) => *reopening = Reopening::Drained(Instant::now()),
                Err(error) => {
                    // Once per outage, not per attempt.
                    if !matches!(*reopening, Reopening::Refused) {
                        let what = "L1 and L2 stay unused: after a silence of the bus the outbox must be read first";
                        tracing::warn!(name: "cache.fence_waits", target: "tiered_cache", %error, what);
                    }
                    *reopening = Reopening::Refused;
                    tokio::time::sleep(BUS_PAUSE).await;
                }
            }
            return;
        }
        *reopening = Reopening::Unasked;
        self.advance_fence(batch.sent_at);
    }

    pub(crate) async fn drain(&self) -> Result<(), LoadError> {
        let Some(outbox) = self.outbox.as_ref().filter(|_| self.remote.is_some()) else { return Ok(()) };
        let work = async {
            loop {
                let rows = outbox.take(OUTBOX_ROWS).await?;
                self.metrics.outbox_pending.set(i64::try_from(rows.len()).unwrap_or(i64::MAX));
                if rows.is_empty() {
                    return Ok(());
                }
                let notice = self.notice(rows.iter().flat_map(|row| outbox::decode(&row.payload)));
                // Whether Redis can be told or not, this process knows now.
                self.forget(&notice.hashes);
                let told = self.tell(&notice, Phase::Done { write: 0, version: 0 }).await;
                told.map_err(|error| -> LoadError { Arc::new(error) })?;
                let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
                outbox.done(&ids).await?;
            }
        };
        match tokio::time::timeout(OUTBOX_TIMEOUT, work).await {
            Ok(drained) => drained,
            Err(elapsed) => Err(Arc::new(elapsed)),
        }
    }
}
