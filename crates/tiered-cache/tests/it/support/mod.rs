//! What the tests share: a source that can be slow, fail and be stopped, and replicas on a fake shared tier.

mod outbox;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tiered_cache::{
    Body, Builder, CacheError, CacheKey, Hit, LoadCx, LoadError, LoadOutcome, Loaded, Policy, Read, TieredCache, Write,
    WriteCx, WriteError,
};
use tokio::runtime::Handle;
use tokio::sync::watch;

pub use outbox::{Table, write_through_outbox};
pub use world::{Down, Link, World};

pub fn key(id: u64) -> CacheKey {
    CacheKey::builder("user").param("id", id).build()
}

/// Durations that are easy to reason about; no jitter, no early refresh unless a test wants them.
pub fn policy() -> Policy {
    Policy { beta: 0.0, jitter: 0.0, ..Policy::new("user") }
}

/// The source: one row per key is enough, so one row.
#[derive(Clone, Debug)]
pub struct Source {
    version: Arc<AtomicU64>,
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
    ttl: Option<Duration>,
    size: usize,
    conditional: bool,
    confirmed: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("the source is down")]
pub struct SourceDown;

impl Source {
    pub fn new() -> Self {
        Self { version: Arc::new(AtomicU64::new(1)), loads: Arc::default(), mode: Arc::default() }
    }

    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    pub fn set_version(&self, version: u64) {
        self.version.store(version, Ordering::SeqCst);
    }

    pub fn bump(&self) -> u64 {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
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

    pub fn ttl(&self, ttl: Duration) {
        self.mode.send_modify(|mode| mode.ttl = Some(ttl));
    }

    pub fn size(&self, size: usize) {
        self.mode.send_modify(|mode| mode.size = size);
    }

    pub fn conditional(&self) {
        self.mode.send_modify(|mode| mode.conditional = true);
    }

    pub fn confirmed(&self) -> usize {
        self.mode.borrow().confirmed
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

    pub async fn load(self, cx: LoadCx) -> Result<LoadOutcome, LoadError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let version = self.version.load(Ordering::SeqCst);
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
        if mode.conditional && cx.stale.is_some_and(|stale| stale.version == version) {
            self.mode.send_modify(|mode| mode.confirmed += 1);
            return Ok(LoadOutcome::NotModified);
        }
        let bytes = if mode.size > 0 { vec![b'x'; mode.size].into() } else { Bytes::from(format!("v{version}")) };
        let body = Body { bytes, etag: Bytes::from(format!("W/\"v{version}\"")) };
        let value = (!mode.absent).then_some(body);
        Ok(LoadOutcome::New(Loaded { value, version: if mode.absent { 0 } else { version }, ttl: mode.ttl }))
    }

    /// Commits a new version.
    pub async fn commit(self, cx: WriteCx) -> Result<(u64, u64), SourceDown> {
        if self.mode.borrow().fails {
            return Err(SourceDown);
        }
        cx.committing();
        tokio::task::yield_now().await;
        let version = self.bump();
        self.mode.send_modify(|mode| mode.absent = false);
        Ok((version, version))
    }
}

/// One process's cache.
#[derive(Clone)]
pub struct Replica {
    pub cache: TieredCache,
    pub link: Link,
    pub source: Source,
    pub policy: Policy,
}

impl Replica {
    pub async fn new(world: &World, source: &Source) -> Self {
        Self::with(world, source, |builder| builder).await
    }

    pub async fn with(world: &World, source: &Source, change: impl FnOnce(Builder) -> Builder) -> Self {
        let link = world.link();
        let builder = TieredCache::builder(Handle::current()).remote(Arc::new(link.clone()), link.bus()).probe_every(0);
        let cache = change(builder).build();
        until(|| cache.health().fence_open).await;
        Self { cache, link, source: source.clone(), policy: policy() }
    }

    pub async fn get(&self) -> Result<Hit, CacheError> {
        self.read(1, Read::Bounded).await
    }

    pub async fn read(&self, id: u64, read: Read) -> Result<Hit, CacheError> {
        let source = self.source.clone();
        self.cache.get_or_load(&key(id), &self.policy, read, |cx| source.load(cx)).await
    }

    /// Begins a read in a task of its own.
    pub fn begin(&self) -> tokio::task::JoinHandle<Result<Hit, CacheError>> {
        let replica = self.clone();
        tokio::spawn(async move { replica.get().await })
    }

    pub async fn put(&self) -> u64 {
        self.write(Write::Strict).await.unwrap()
    }

    pub async fn write(&self, level: Write) -> Result<u64, WriteError<SourceDown>> {
        let source = self.source.clone();
        self.cache.write(vec![key(1)], level, |cx| source.commit(cx)).await
    }

    pub fn in_l1(&self) -> Option<u64> {
        self.cache.peek(&key(1), &self.policy).map(|hit| hit.entry.version)
    }
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
    cache.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0.0)
}
