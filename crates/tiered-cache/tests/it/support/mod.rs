//! What the tests share: the source, and replicas on a fake shared tier.

mod link;
mod space;
mod world;

use std::sync::Arc;
use std::time::Duration;

use tiered_cache::{Builder, CacheError, Hit, Policy, Read, TieredCache, WriteError};
use tokio::runtime::Handle;
use tokio::time::Instant;

pub use crate::source::way::Down;
pub use crate::source::*;
pub use link::Link;
pub use world::{Data, World};

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
