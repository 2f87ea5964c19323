//! A source that can be slow, fail and be stopped, and its log of changes: for the tests of the cache and of its tiers.

pub mod log;
pub mod way;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tiered_cache::{Body, CacheKey, Committed, Hit, LoadError, Loaded, Policy, TieredCache};
use tokio::sync::watch;

pub use log::{Log, LogWay, Row};

pub fn key(id: u64) -> CacheKey {
    CacheKey::builder("user").param("id", id).build()
}

/// Durations that are easy to reason about; no jitter, no early refresh unless a test wants them.
pub fn policy() -> Policy {
    Policy { beta: 0.0, jitter: 0.0, ..Policy::new("user") }
}

/// The source: one row per key is enough, so one row.
#[derive(Clone)]
pub struct Source {
    pub log: Log,
    loads: Arc<AtomicUsize>,
    mode: Arc<watch::Sender<Mode>>,
}

#[derive(Clone, Debug, Default)]
struct Mode {
    delay: Duration,
    /// Stops loads after they read the row.
    shut: bool,
    waiting: usize,
    fails: bool,
    panics: bool,
    absent: bool,
    unversioned: bool,
    size: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("the source is down")]
pub struct SourceDown;

impl Source {
    pub fn new() -> Self {
        Self { log: Log::new(), loads: Arc::default(), mode: Arc::default() }
    }

    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    /// A change that the log doesn't know of.
    pub fn set_version(&self, version: u64) {
        self.log.change_silently(version);
    }

    /// A change by somebody who knows no cache.
    pub fn plain_write(&self) -> Row {
        self.log.commit(!self.mode.borrow().unversioned)
    }

    /// The same for everything of the kind.
    pub fn plain_write_all(&self) -> Row {
        self.log.commit_all()
    }

    pub fn slow(&self, delay: Duration) {
        self.mode.send_modify(|mode| mode.delay = delay);
    }

    pub fn fail(&self, fails: bool) {
        self.mode.send_modify(|mode| mode.fails = fails);
    }

    pub fn panic(&self, panics: bool) {
        self.mode.send_modify(|mode| mode.panics = panics);
    }

    pub fn absent(&self, absent: bool) {
        self.mode.send_modify(|mode| mode.absent = absent);
    }

    /// Its rows have no versions.
    pub fn unversioned(&self) {
        self.mode.send_modify(|mode| mode.unversioned = true);
    }

    pub fn size(&self, size: usize) {
        self.mode.send_modify(|mode| mode.size = size);
    }

    /// Stops loads between reading the row and returning it.
    pub fn shut(&self) {
        self.mode.send_modify(|mode| mode.shut = true);
    }

    pub fn open(&self) {
        self.mode.send_modify(|mode| mode.shut = false);
    }

    /// Returns when a load has read the row and stands at the gate.
    pub async fn read(&self) {
        let mut mode = self.mode.subscribe();
        let waiting = mode.wait_for(|mode| mode.waiting > 0);
        tokio::time::timeout(Duration::from_secs(120), waiting).await.unwrap().unwrap();
    }

    pub async fn load(self) -> Result<Loaded, LoadError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let Row { version, serial } = self.log.row();
        let mode = self.mode.borrow().clone();
        if mode.shut {
            self.mode.send_modify(|mode| mode.waiting += 1);
            self.mode.subscribe().wait_for(|mode| !mode.shut).await.unwrap();
            self.mode.send_modify(|mode| mode.waiting -= 1);
        }
        tokio::time::sleep(mode.delay).await;
        assert!(!mode.panics, "asked to panic");
        if mode.fails {
            return Err(Arc::new(SourceDown));
        }
        let bytes = if mode.size > 0 { vec![b'x'; mode.size].into() } else { Bytes::from(format!("commit {serial}")) };
        let body = Body { bytes, etag: Bytes::from(format!("W/\"v{version}\"")) };
        let value = (!mode.absent).then_some(body);
        Ok(Loaded { value, version: if mode.absent || mode.unversioned { 0 } else { version } })
    }

    /// Commits a new version of the row, as a writer that uses the cache does.
    pub async fn commit(self) -> Result<Committed<u64>, SourceDown> {
        assert!(!self.mode.borrow().panics, "asked to panic");
        if self.mode.borrow().fails {
            return Err(SourceDown);
        }
        tokio::task::yield_now().await;
        let versioned = !self.mode.borrow().unversioned;
        let Row { version, .. } = self.log.commit(versioned);
        self.mode.send_modify(|mode| mode.absent = false);
        Ok(Committed { value: version, changed: vec![(key(1), if versioned { version } else { 0 })] })
    }
}

/// What an answer's body is.
pub fn body(hit: &Hit) -> Bytes {
    hit.entry.value.as_ref().unwrap().bytes.clone()
}

/// Which commit an answer is from.
pub fn serial(hit: &Hit) -> u64 {
    std::str::from_utf8(&body(hit)).unwrap().strip_prefix("commit ").unwrap().parse().unwrap()
}

/// Long enough for the bus, and too short for the log.
pub async fn told_by_the_bus() {
    tokio::time::sleep(Duration::from_millis(60)).await;
}

/// Waits for a condition; its limit is only there to end a test that failed.
pub async fn until(condition: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the condition never came true");
}

/// The value of one metric line, 0 when there is none.
pub fn metric(cache: &TieredCache, line: &str) -> f64 {
    let mut registry = prometheus_client::registry::Registry::default();
    cache.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0.0)
}
