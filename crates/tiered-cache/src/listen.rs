//! The background tasks: the bus and its fence, the outbox, the breaker's way back.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::inner::Inner;
use crate::remote::{Batch, Bus, Phase};
use crate::{LoadError, outbox};

const OUTBOX_EVERY: Duration = Duration::from_secs(1);
const OUTBOX_ROWS: usize = 100;
const OUTBOX_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failure that may come at once, so that it isn't repeated at once.
const BUS_PAUSE: Duration = Duration::from_millis(20);
const BREAKER_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn bus(inner: Weak<Inner>, mut bus: Box<dyn Bus>) {
    loop {
        let read = bus.next().await;
        let Some(inner) = inner.upgrade() else { return };
        match read {
            Ok(batch) => inner.apply(&batch).await,
            Err(error) => {
                inner.metrics.bus_errors.inc();
                tracing::debug!(target: "tiered_cache", %error, "the bus can't be read");
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
            tracing::debug!(target: "tiered_cache", %error, "the outbox can't be drained");
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

impl Inner {
    async fn apply(&self, batch: &Batch) {
        if let Some(gap) = batch.gap {
            // Clear after the position was taken, detach after clearing: nothing from before survives.
            self.l1.clear();
            self.flights.detach_all();
            self.metrics.bus_gap(gap.as_str());
        }
        for notice in &batch.notices {
            if notice.origin != self.origin {
                self.forget(&notice.hashes);
            }
        }
        if !batch.caught_up {
            return;
        }
        // After a silence other replicas may have written without Redis: first what they left in the outbox.
        // This read is too old by then, the next one opens the fence.
        if !self.fence_open(Instant::now()) && self.outbox.is_some() && !self.caught_up.swap(false, SeqCst) {
            match self.drain().await {
                Ok(()) => self.caught_up.store(true, SeqCst),
                Err(error) => {
                    tracing::debug!(target: "tiered_cache", %error, "the fence stays shut: the outbox can't be drained");
                    tokio::time::sleep(BUS_PAUSE).await;
                }
            }
            return;
        }
        self.advance_fence(batch.sent_at);
    }

    pub(crate) async fn drain(&self) -> Result<(), LoadError> {
        let Some(outbox) = &self.outbox else { return Ok(()) };
        let Some(remote) = &self.remote else { return Ok(()) };
        let work = async {
            loop {
                let rows = outbox.take(OUTBOX_ROWS).await?;
                self.metrics.outbox_pending(rows.len());
                if rows.is_empty() {
                    return Ok(());
                }
                let hashes: Vec<u128> = rows.iter().flat_map(|row| outbox::decode(&row.payload)).collect();
                // Whether Redis can be told or not, this process knows now.
                self.forget(&hashes);
                let told = remote.invalidate(&hashes, Phase::Done { write: 0, version: 0 }, self.origin).await;
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
