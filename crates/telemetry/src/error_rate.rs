//! The share of failed answers over the last minute: two counters, and what they showed in each of its seconds.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::process::gauge;

/// What "the last minute" is made of.
pub const SECONDS: usize = 60;

/// Counts answers, and those that were errors.
#[derive(Debug, Default)]
pub struct ErrorRate {
    answers: AtomicU64,
    errors: AtomicU64,
    /// Answers and errors so far, as of each of the last seconds, the latest last.
    seconds: Mutex<VecDeque<(u64, u64)>>,
}

impl ErrorRate {
    /// Counts an answer.
    pub fn record(&self, is_error: bool) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(is_error), Ordering::Relaxed);
    }

    fn totals(&self) -> (u64, u64) {
        (self.answers.load(Ordering::Relaxed), self.errors.load(Ordering::Relaxed))
    }

    /// To be called once a second.
    pub fn tick(&self) {
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        if seconds.len() == SECONDS {
            seconds.pop_front();
        }
        seconds.push_back(self.totals());
    }

    /// Percent of the answers of the last minute that were errors; 0 without any.
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute are far below 2^53")]
    pub fn percent(&self) -> f64 {
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        // Until a minute has passed, all there was is within it.
        let before = if seconds.len() < SECONDS { None } else { seconds.front() };
        let ((answers, errors), (old_answers, old_errors)) = (self.totals(), before.copied().unwrap_or_default());
        if answers == old_answers { 0.0 } else { (errors - old_errors) as f64 * 100.0 / (answers - old_answers) as f64 }
    }
}

impl Collector for ErrorRate {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        gauge(
            &mut encoder,
            "http_error_rate",
            "Percent of answers of 400 and above in the last minute.",
            None,
            self.percent(),
        )
    }
}
