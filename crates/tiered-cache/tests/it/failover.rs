//! A real Redis that dies, and its real replica that takes over without having heard of the last invalidations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devkit::{Fault, FaultProxy};
use tiered_cache::{Tier, TieredCache};
use tokio::runtime::Handle;

use crate::redis::{connect_patiently, get, put, raw};
use crate::support::{Source, Table, key, metric, until, write_through_outbox};

/// Generous: it bounds what hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A Redis and its replica, and the way that each process of the cache takes to whichever of them rules.
struct Pair {
    primary: devkit::Redis,
    replica: devkit::Redis,
    replication: FaultProxy,
    ways: Vec<FaultProxy>,
}

impl Pair {
    async fn start() -> Self {
        let (primary, replica) = (devkit::Redis::start().await.unwrap(), devkit::Redis::start().await.unwrap());
        let replication = FaultProxy::start(primary.address()).await.unwrap();
        let _: () = raw(&primary, &["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
        let _: () = raw(&replica, &["REPLICAOF", "127.0.0.1", &replication.port().to_string()]).await;
        let pair = Self { primary, replica, replication, ways: Vec::new() };
        pair.wait_for_replica().await;
        pair
    }

    async fn cache(&mut self, outbox: &Table) -> TieredCache {
        let way = FaultProxy::start(self.primary.address()).await.unwrap();
        let redis = connect_patiently(format!("redis://{}", way.addr()));
        self.ways.push(way);
        let cache = TieredCache::builder(Handle::current()).redis(redis).outbox(Arc::new(outbox.clone())).build();
        until(|| cache.health().fence_open).await;
        cache
    }

    /// All that was done so far is done there, too.
    async fn wait_for_replica(&self) {
        wait_until_it_follows(&self.replica, &self.primary).await;
    }

    /// Nothing more reaches the replica.
    fn lose_replication(&self) {
        self.replication.set(Fault::BlackHole);
    }

    async fn kill_primary(&self) {
        self.primary.stop().await.unwrap();
    }

    /// Everyone finds the replica before it may be written to.
    async fn promote_replica(&self) {
        for way in &self.ways {
            way.forward_to(self.replica.address());
            way.set(Fault::None);
        }
        let refused =
            async || raw::<String>(&self.replica, &["INFO", "errorstats"]).await.contains("errorstat_READONLY");
        devkit::wait_until("somebody is refused", LIMIT, refused).await.unwrap();
        let _: () = raw(&self.replica, &["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Values of the cache in a server.
    async fn values(server: &devkit::Redis) -> usize {
        raw::<Vec<String>>(server, &["KEYS", "cache:c:*"]).await.len()
    }
}

async fn wait_until_it_follows(replica: &devkit::Redis, primary: &devkit::Redis) {
    let follows = async || {
        let (ahead, behind) = (replication(primary).await, replication(replica).await);
        behind.get("master_link_status").is_some_and(|link| link == "up")
            && behind.get("slave_repl_offset") == ahead.get("master_repl_offset")
    };
    devkit::wait_until("the replica has all that the primary has", LIMIT, follows).await.unwrap();
}

async fn replication(server: &devkit::Redis) -> HashMap<String, String> {
    let info: String = raw(server, &["INFO", "replication"]).await;
    let pairs = info.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn failovers(cache: &TieredCache) -> f64 {
    metric(cache, r#"cache_bus_gap_total{reason="failover"}"#)
}

/// T17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_that_lost_an_invalidation_nobody_returns_the_old_value() {
    let (mut pair, source, outbox) = (Pair::start().await, Source::new(), Table::default());
    let (writer, reader) = (pair.cache(&outbox).await, pair.cache(&outbox).await);
    assert_eq!(get(&writer, &source).await.entry.version, 1);
    assert_eq!(get(&reader, &source).await.tier, Tier::L2);
    pair.wait_for_replica().await;

    pair.lose_replication();
    pair.ways[1].set(Fault::BlackHole);
    assert_eq!(put(&writer, &source).await, 2);
    let written = Instant::now();
    pair.kill_primary().await;
    assert_eq!(Pair::values(&pair.replica).await, 1, "the invalidation was to be lost");
    pair.promote_replica().await;

    until(|| failovers(&writer) == 1.0 && failovers(&reader) == 1.0).await;
    until(|| reader.health().fence_open && writer.health().fence_open).await;
    // As long as the promise leaves it, in case that the failover took less.
    tokio::time::sleep(Duration::from_secs(1).saturating_sub(written.elapsed())).await;
    for cache in [&reader, &writer] {
        let hit = get(cache, &source).await;
        assert_eq!(hit.entry.version, 2, "from {:?}", hit.tier);
    }
}

/// T17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_end_was_lost_in_a_failover_stores_nothing() {
    let (mut pair, source, outbox) = (Pair::start().await, Source::new(), Table::default());
    let (writer, reader) = (pair.cache(&outbox).await, pair.cache(&outbox).await);
    source.shut();
    let load = {
        let (reader, source) = (reader.clone(), source.clone());
        tokio::spawn(async move { get(&reader, &source).await })
    };
    source.read().await;
    pair.wait_for_replica().await;

    pair.lose_replication();
    assert_eq!(put(&writer, &source).await, 2);
    pair.kill_primary().await;
    pair.promote_replica().await;
    until(|| [&writer, &reader].iter().all(|cache| failovers(cache) == 1.0 && cache.health().fence_open)).await;
    let reached = async || reader.invalidate(&[key(2)]).await.is_ok();
    devkit::wait_until("the reader can tell Redis something", LIMIT, reached).await.unwrap();
    source.open();

    let old = load.await.unwrap();
    assert_eq!((old.entry.version, old.stored), (1, false));
    assert_eq!(metric(&reader, r#"cache_fill_total{cache="user",tier="l2",result="lost"}"#), 1.0);
    assert_eq!(get(&writer, &source).await.entry.version, 2);
}

/// T17: a primary that was cut off is made a replica of its successor, and so loses what only it knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_back_in_time_is_noticed() {
    let (mut pair, source, outbox) = (Pair::start().await, Source::new(), Table::default());
    let cache = pair.cache(&outbox).await;
    get(&cache, &source).await;
    pair.wait_for_replica().await;
    pair.lose_replication();
    assert_eq!(put(&cache, &source).await, 2);

    let _: () = raw(&pair.replica, &["REPLICAOF", "NO", "ONE"]).await;
    let _: () = raw(&pair.replica, &["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
    let _: () = raw(&pair.primary, &["REPLICAOF", "127.0.0.1", &pair.replica.port().to_string()]).await;
    wait_until_it_follows(&pair.primary, &pair.replica).await;
    let _: () = raw(&pair.primary, &["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(Pair::values(&pair.primary).await, 1, "the invalidation was to be lost");

    until(|| failovers(&cache) == 1.0 && cache.health().fence_open).await;
    assert_eq!(get(&cache, &source).await.entry.version, 2);
}

/// T11, T17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_during_a_failover_is_delivered_before_the_new_primary_is_believed() {
    let (mut pair, source, outbox) = (Pair::start().await, Source::new(), Table::default());
    let (writer, reader) = (pair.cache(&outbox).await, pair.cache(&outbox).await);
    assert_eq!(get(&reader, &source).await.entry.version, 1);
    pair.wait_for_replica().await;

    pair.kill_primary().await;
    assert_eq!(write_through_outbox(&writer, &source, &outbox).await.unwrap(), 2);
    assert_eq!(outbox.len(), 1);
    // The writer is gone with its retries: what it left must do.
    writer.shutdown(Duration::ZERO).await;
    until(|| !reader.health().fence_open).await;
    assert_eq!(Pair::values(&pair.replica).await, 1, "there is an old value to be found");
    pair.promote_replica().await;

    until(|| reader.health().fence_open).await;
    assert_eq!(outbox.len(), 0);
    assert_eq!(failovers(&reader), 1.0);
    assert_eq!(get(&reader, &source).await.entry.version, 2);
}
