//! The share of failed answers over the last minute, in sixty counters that are reused.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::process::gauge;

const SECONDS: u64 = 60;
const SLOTS: usize = 60;

#[derive(Debug)]
pub struct ErrorRate {
    start: Instant,
    slots: [Slot; SLOTS],
}

/// `second` says which second the counts are of; whoever meets an older one starts it anew.
#[derive(Debug, Default)]
struct Slot {
    second: AtomicU64,
    answers: AtomicU64,
    errors: AtomicU64,
}

impl Default for ErrorRate {
    fn default() -> Self {
        Self { start: Instant::now(), slots: std::array::from_fn(|_| Slot::default()) }
    }
}

impl ErrorRate {
    pub fn record(&self, is_error: bool) {
        self.record_at(self.start.elapsed().as_secs() + SECONDS, is_error);
    }

    /// Percent of the answers of the last minute that were errors; 0 without any.
    fn percent(&self) -> f64 {
        self.percent_at(self.start.elapsed().as_secs() + SECONDS)
    }

    /// Two threads that meet an old slot at once may lose a few counts of each other; for a gauge that is enough.
    fn record_at(&self, second: u64, is_error: bool) {
        let Some(slot) = usize::try_from(second % SECONDS).ok().and_then(|index| self.slots.get(index)) else {
            return;
        };
        if slot.second.swap(second, Ordering::Relaxed) != second {
            slot.answers.store(0, Ordering::Relaxed);
            slot.errors.store(0, Ordering::Relaxed);
        }
        slot.answers.fetch_add(1, Ordering::Relaxed);
        slot.errors.fetch_add(u64::from(is_error), Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a minute are far below 2^53")]
    fn percent_at(&self, now: u64) -> f64 {
        let recent = self.slots.iter().filter(|slot| slot.second.load(Ordering::Relaxed) + SECONDS > now);
        let (answers, errors) = recent.fold((0, 0), |(answers, errors), slot| {
            (answers + slot.answers.load(Ordering::Relaxed), errors + slot.errors.load(Ordering::Relaxed))
        });
        if answers == 0 { 0.0 } else { errors as f64 * 100.0 / answers as f64 }
    }
}

impl Collector for ErrorRate {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        gauge(&mut encoder, "http_error_rate", "Percent of errors over the last minute.", None, self.percent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_minute_counts() {
        let rate = ErrorRate::default();
        rate.record_at(100, true);
        rate.record_at(101, false);
        assert!((rate.percent_at(101) - 50.0).abs() < f64::EPSILON);
        assert!((rate.percent_at(160) - 0.0).abs() < f64::EPSILON, "the error of second 100 is a minute old");
        rate.record_at(160, false);
        assert!((rate.percent_at(160) - 0.0).abs() < f64::EPSILON, "its slot was started anew");
    }
}
