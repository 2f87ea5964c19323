//! What the tests share: a source that can be slow, fail and be stopped, its log, and replicas on a fake shared tier.

mod link;
mod log;
mod space;
mod way;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tiered_cache::{
    Body, Builder, CacheError, CacheKey, Committed, Hit, LoadError, Loaded, Policy, Read, TieredCache, WriteError,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

pub use link::Link;
pub use log::{Commit, Log, LogWay, Row};
pub use way::Down;
pub use world::{Data, World};

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

/// Which commit an answer is from.
pub fn serial(hit: &Hit) -> u64 {
    std::str::from_utf8(&hit.entry.body).unwrap().strip_prefix("commit ").unwrap().parse().unwrap()
}

/// One process's cache.
#[derive(Clone)]
pub struct Replica {
    pub cache: TieredCache,
    pub link: Link,
    pub log: LogWay,
    pub source: Source,
    pub policy: Policy,
}

impl Replica {
    pub async fn new(world: &World, source: &Source) -> Self {
        Self::with(world, source, |builder| builder).await
    }

    pub async fn with(world: &World, source: &Source, change: impl FnOnce(Builder) -> Builder) -> Self {
        let link = world.link();
        let remote = Arc::new(link.clone());
        Self::start(&link, source, |builder| change(builder.remote(remote, link.bus()))).await
    }

    /// One whose way to the shared tier isn't well from the beginning.
    pub async fn with_link(world: &World, source: &Source, change: impl FnOnce(&Link)) -> Self {
        let link = world.link();
        change(&link);
        let remote = Arc::new(link.clone());
        let replica = Self::build(&link, source, |builder| builder.remote(remote, link.bus()));
        until(|| replica.is_open()).await;
        replica
    }

    /// One that has no shared tier.
    pub async fn alone(source: &Source) -> Self {
        Self::start(&World::new().link(), source, |builder| builder).await
    }

    async fn start(link: &Link, source: &Source, change: impl FnOnce(Builder) -> Builder) -> Self {
        let replica = Self::build(link, source, change);
        until(|| replica.is_well()).await;
        replica
    }

    fn build(link: &Link, source: &Source, change: impl FnOnce(Builder) -> Builder) -> Self {
        let log = source.log.way();
        let builder = TieredCache::builder(Handle::current()).log(Arc::new(log.clone())).probe_every(0);
        let cache = change(builder).build();
        Self { cache, link: link.clone(), log, source: source.clone(), policy: policy() }
    }

    /// The cache can be used, and its shared tier, if it has one.
    pub fn is_well(&self) -> bool {
        self.is_open() && self.cache.health().unfit.is_none() && self.link.is_heard()
    }

    pub fn is_open(&self) -> bool {
        self.cache.health().fence_open
    }

    pub async fn get(&self) -> Result<Hit, CacheError> {
        self.read(1, Read::Bounded).await
    }

    pub async fn read(&self, id: u64, read: Read) -> Result<Hit, CacheError> {
        let source = self.source.clone();
        self.cache.get_or_load(&key(id), &self.policy, read, || source.load()).await
    }

    /// Begins a read in a task of its own.
    pub fn begin(&self) -> tokio::task::JoinHandle<Result<Hit, CacheError>> {
        let replica = self.clone();
        tokio::spawn(async move { replica.get().await })
    }

    pub async fn put(&self) -> u64 {
        self.write().await.unwrap()
    }

    pub async fn write(&self) -> Result<u64, WriteError<SourceDown>> {
        let source = self.source.clone();
        self.cache.write(|| source.commit()).await
    }

    /// Begins a write in a task of its own.
    pub fn begin_write(&self) -> tokio::task::JoinHandle<u64> {
        let replica = self.clone();
        tokio::spawn(async move { replica.put().await })
    }

    /// Reads for some time; nothing that was asked later than a second after `since` may be older than `version`.
    pub async fn keeps_the_promise(&self, since: Instant, version: u64, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let begun = Instant::now();
            if let Ok(hit) = self.get().await
                && begun > since + Duration::from_secs(1)
            {
                assert!(hit.entry.version >= version, "{:?} later from {:?}", begun - since, hit.tier);
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// The same without a load, which would bring what is new.
    pub async fn has_nothing_old(&self, since: Instant, version: u64, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let old = self.in_l1().is_some_and(|found| found < version);
            assert!(!old || since.elapsed() <= Duration::from_secs(1), "{:?} later", since.elapsed());
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    }

    pub fn in_l1(&self) -> Option<u64> {
        self.cache.peek(&key(1), &self.policy).map(|hit| hit.entry.version)
    }
}

/// Replicas of one source on one tier, which all know of each other and aren't in step.
pub async fn replicas<const N: usize>() -> (World, Source, [Replica; N]) {
    let (world, source) = (World::new(), Source::new());
    let mut all = Vec::new();
    for _ in 0..N {
        // Not in step.
        tokio::time::sleep(Duration::from_millis(170)).await;
        all.push(Replica::new(&world, &source).await);
    }
    // Each has counted all by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    (world, source, all.try_into().unwrap_or_else(|_| panic!("as many as were made")))
}

/// How long the fence was shut within some time.
pub async fn shut(replica: &Replica, time: Duration) -> Duration {
    let (end, mut shut, step) = (Instant::now() + time, Duration::ZERO, Duration::from_millis(5));
    while Instant::now() < end {
        tokio::time::sleep(step).await;
        shut += if replica.is_open() { Duration::ZERO } else { step };
    }
    shut
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
    cache.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0.0)
}
