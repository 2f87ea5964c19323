//! The task that reads the bus.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::inner::Inner;
use crate::lock::lock;
use crate::log::Change;
use crate::remote::{Batch, Bus};

/// The first and the longest pause after what may come again at once; each is twice the one before.
const PAUSE: Range<Duration> = Duration::from_millis(20)..Duration::from_millis(500);
/// A bus that can't be read for so long, though the tier is well, is worth a word.
const DEAF: Duration = Duration::from_secs(2);

pub(crate) async fn bus(inner: Weak<Inner>, mut bus: Box<dyn Bus>) {
    let (mut lost, mut pause, mut deaf) = (false, PAUSE.start, None);
    loop {
        let read = bus.next().await;
        let Some(inner) = inner.upgrade() else { return };
        deaf = if read.is_ok() { None } else { deaf.or(Some(Instant::now())) };
        // A tier that can't be used as a whole tells that itself.
        if let Some(shared) = &inner.shared
            && deaf.is_none_or(|since| since.elapsed() >= DEAF && shared.part.is_well())
        {
            shared.bus.look(&read);
        }
        let smooth = match read {
            Ok(batch) => {
                if std::mem::take(&mut lost) {
                    inner.metrics.bus_reconnects.inc();
                }
                inner.hear_bus(&batch);
                !batch.gap
            }
            Err(error) => {
                lost = inner.heard().bus.is_some();
                inner.metrics.bus_errors.inc();
                tracing::debug!(name: "cache.bus_unread", target: "tiered_cache", %error, "the bus can't be read");
                false
            }
        };
        drop(inner);
        if smooth {
            pause = PAUSE.start;
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.end);
        }
    }
}

impl Inner {
    fn hear_bus(&self, batch: &Batch) {
        if !batch.notices.is_empty() {
            self.hear_notices(batch);
        }
        let mut heard = lock(&self.heard);
        if batch.gap && heard.bus_unbroken_since.replace(batch.sent_at).is_some() {
            self.metrics.bus_gaps.inc();
        }
        heard.reached = batch.reached;
        if batch.caught_up {
            heard.bus = Some(batch.sent_at);
        }
        heard.vouched_up_to().into_iter().for_each(|up_to| self.fence.hear(up_to));
    }

    fn hear_notices(&self, batch: &Batch) {
        let others = batch.notices.iter().filter(|notice| notice.origin != self.replica);
        let causes: BTreeSet<&str> = others.map(|notice| &*notice.cause).filter(|cause| !cause.is_empty()).collect();
        // Worth a trace when what caused it is in one.
        let span = if causes.is_empty() {
            Span::none()
        } else {
            tracing::info_span!(target: "tiered_cache::linked", parent: None, "cache_bus", entries = batch.notices.len())
        };
        causes.into_iter().for_each(|cause| (self.links.link)(&span, cause));
        let _entered = span.entered();
        for notice in &batch.notices {
            if notice.origin == self.replica {
                self.echoed(&notice.changes);
            } else {
                self.apply(&notice.changes);
            }
        }
    }

    /// An own notice came back.
    fn echoed(&self, changes: &[Change]) {
        let mut echoes = lock(&self.echoes);
        let Some(first) = changes.first() else { return };
        let sent = echoes.iter().position(|(what, _)| *what == first.what).and_then(|at| echoes.remove(at));
        if let Some((_, sent)) = sent {
            self.metrics.visible(sent.elapsed());
        }
    }
}
