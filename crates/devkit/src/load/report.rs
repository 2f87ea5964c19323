//! What came of the requests.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Ask;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// Neither accepted nor refused.
    NoConnection,
    /// The connection was reset.
    Reset,
    /// It ended before the answer.
    Closed,
    /// It ended within the answer.
    Cut,
    /// No complete answer in time.
    Timeout,
    /// Bytes that aren't HTTP.
    Malformed,
    /// An answer of 4xx or 5xx.
    Status(u16),
}

/// The sum of a load.
#[expect(missing_docs, reason = "the names say it")]
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Good answers by status.
    pub good: BTreeMap<u16, u64>,
    /// Failed requests by method.
    pub failed: BTreeMap<(Failure, &'static str), u64>,
    /// What is to be known of the first hundred that failed.
    pub lost: Vec<String>,
    /// Trace ids of requests that were sampled and answered well.
    pub traces: Vec<u128>,
    pub slowest: Duration,
    pub took: Duration,
}

impl Report {
    /// Requests in all.
    pub fn total(&self) -> u64 {
        self.good.values().sum::<u64>() + self.failures()
    }

    /// Failed ones.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    pub(super) fn add(
        &mut self,
        ask: &Ask,
        outcome: Result<u16, Failure>,
        took: Duration,
        trace: Option<u128>,
        note: impl Fn() -> String,
    ) {
        self.slowest = self.slowest.max(took);
        match outcome {
            Ok(status) => {
                *self.good.entry(status).or_default() += 1;
                self.traces.extend(trace);
            }
            Err(failure) => {
                *self.failed.entry((failure, ask.method)).or_default() += 1;
                if self.lost.len() < 100 {
                    let (method, path) = (ask.method, &ask.path);
                    self.lost.push(format!("{failure:?}: {method} {path} {}", note()));
                }
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, failures, took) = (self.total(), self.failures(), self.took);
        write!(f, "{total} requests in {took:.1?}, {failures} failed {:?}; ", self.failed)?;
        write!(f, "answers {:?}, slowest {:.1?}", self.good, self.slowest)?;
        self.lost.iter().take(10).try_for_each(|lost| write!(f, "\n  {lost}"))
    }
}
