//! Counts since a moment, from counters that begin at zero again when their process does.

use std::collections::HashMap;

use super::parts::{Counters, Replica, Slot};
use crate::gate::{Arm, Histogram};

/// The service's histogram of answers' durations, and its counter of panics.
const DURATIONS: &str = "http_request_duration_seconds";
const PANICS: &str = "panics_total";

/// What one container's page of metrics says; probes and scrapes left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// Cumulative, by upper bound.
    buckets: Vec<(f64, u64)>,
    seconds: f64,
    pub panics: u64,
}

impl Page {
    /// Reads Prometheus text.
    pub fn read(text: &str) -> Self {
        let mut page = Self::default();
        for (name, value) in text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '))
        {
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            let Ok(value) = value.parse::<f64>() else { continue };
            let own = labels.contains("=\"/health") || labels.contains("=\"/metrics\"");
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts, written as numbers")]
            let count = value as u64;
            match name.strip_prefix(DURATIONS) {
                Some("_bucket") if !own => page.add(labels, count),
                Some("_sum") if !own => page.seconds += value,
                _ if name == PANICS => page.panics += count,
                _ => {}
            }
        }
        page
    }

    fn add(&mut self, labels: &str, count: u64) {
        let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
        let Some(bound) = bound.and_then(|bound| bound.parse::<f64>().ok()) else { return };
        match self.buckets.iter_mut().find(|(own, _)| own.total_cmp(&bound).is_eq()) {
            Some((_, own)) => *own += count,
            None => self.buckets.push((bound, count)),
        }
    }

    /// What came since `before`, by bucket alone.
    fn since(&self, before: &Self) -> Histogram {
        let mut bounds = self.buckets.clone();
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut below = 0;
        let buckets = bounds.iter().map(|(bound, count)| {
            let old = before.buckets.iter().find(|(own, _)| own.total_cmp(bound).is_eq()).map_or(0, |(_, old)| *old);
            let all = count.saturating_sub(old);
            let alone = all.saturating_sub(below);
            below = below.max(all);
            (*bound, alone)
        });
        Histogram { buckets: buckets.collect(), seconds: (self.seconds - before.seconds).max(0.0) }
    }
}

/// Counts of some replicas as one side of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    counters: HashMap<String, (Counters, Counters)>,
    pages: HashMap<String, (Page, Page)>,
    probes: (u64, u64),
}

impl Meter {
    /// Adds what the balancer has counted for these replicas since the last time.
    pub fn count(&mut self, replicas: &[Replica], slots: &[Slot]) {
        for slot in slots.iter().filter(|slot| replicas.iter().any(|one| one.slot == slot.name)) {
            let now = slot.counters;
            let (last, sum) = self.counters.entry(slot.name.clone()).or_insert((now, Counters::default()));
            let added = |now: u64, last: u64| now.checked_sub(last).unwrap_or(now);
            sum.requests += added(now.requests, last.requests);
            sum.errors += added(now.errors, last.errors);
            *last = now;
        }
    }

    /// Takes over a page of metrics; the first is what later ones are measured from.
    pub fn page(&mut self, container: &str, page: Page) {
        let pages = self.pages.entry(container.to_owned()).or_insert((page.clone(), page.clone()));
        pages.1 = page;
    }

    /// Adds requests of our own.
    pub fn probed(&mut self, requests: u64, errors: u64) {
        self.probes.0 += requests;
        self.probes.1 += errors;
    }

    /// From here on durations are measured anew.
    pub fn warm(&mut self) {
        self.pages.clear();
    }

    /// Panics since the containers' processes began, so that none is missed between two meters. A process that ended in
    /// one is no longer asked: its restart is seen.
    pub fn panics(&self) -> u64 {
        self.pages.values().map(|(_, last)| last.panics).sum()
    }

    /// All of it.
    pub fn arm(&self) -> Arm {
        let sums = self.counters.values().map(|(_, sum)| sum);
        let (requests, errors) = sums.fold(self.probes, |(r, e), sum| (r + sum.requests, e + sum.errors));
        let mut latency = Histogram::default();
        for histogram in self.pages.values().map(|(first, last)| last.since(first)) {
            latency.seconds += histogram.seconds;
            for (bound, count) in histogram.buckets {
                match latency.buckets.iter_mut().find(|(own, _)| own.total_cmp(&bound).is_eq()) {
                    Some((_, own)) => *own += count,
                    None => latency.buckets.push((bound, count)),
                }
            }
        }
        Arm { requests, errors, latency }
    }
}
