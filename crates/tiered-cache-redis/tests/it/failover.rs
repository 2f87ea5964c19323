//! A real Redis that dies, and its real replica that takes over without having heard of the last invalidations.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use devkit::{Fault, FaultProxy};
use tiered_cache::{Tier, TieredCache};

use crate::site::{Site, filled, gaps, is_used, keys, raw};
use crate::source::{serial, until};

/// Generous: it bounds what hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A Redis and its replica, and the way that each process of the cache takes to whichever of them rules.
struct Pair {
    primary: devkit::Redis,
    replica: devkit::Redis,
    replication: FaultProxy,
    /// Who rules.
    ruler: SocketAddr,
    ways: Vec<FaultProxy>,
}

impl Pair {
    async fn start() -> Self {
        let (primary, replica) = (devkit::Redis::start().await.unwrap(), devkit::Redis::start().await.unwrap());
        let replication = FaultProxy::start(primary.address()).await.unwrap();
        let _: () = raw(&primary, &["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
        let _: () = raw(&replica, &["REPLICAOF", "127.0.0.1", &replication.port().to_string()]).await;
        let ruler = primary.address();
        let pair = Self { primary, replica, replication, ruler, ways: Vec::new() };
        pair.wait_for_replica().await;
        pair
    }

    async fn cache(&mut self, site: &Site) -> TieredCache {
        let way = FaultProxy::start(self.ruler).await.unwrap();
        let url = format!("redis://{}", way.addr());
        self.ways.push(way);
        site.cache(url).await
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
    async fn promote_replica(&mut self) {
        self.ruler = self.replica.address();
        for way in &self.ways {
            way.forward_to(self.ruler);
            way.set(Fault::None);
        }
        let refused =
            async || raw::<String>(&self.replica, &["INFO", "errorstats"]).await.contains("errorstat_READONLY");
        devkit::wait_until("somebody is refused", LIMIT, refused).await.unwrap();
        let _: () = raw(&self.replica, &["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Values of the cache in a server.
    async fn values(server: &devkit::Redis) -> usize {
        keys(server, ":v:").await.len()
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

/// T17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_that_lost_an_invalidation_nobody_returns_the_old_value() {
    let (mut pair, site) = (Pair::start().await, Site::new());
    let (writer, reader) = (pair.cache(&site).await, pair.cache(&site).await);
    assert_eq!(site.get(&writer).await.entry.version, 1);
    assert_eq!(site.get(&reader).await.tier, Tier::L2);
    pair.wait_for_replica().await;

    pair.lose_replication();
    pair.ways[1].set(Fault::BlackHole);
    assert_eq!(site.put(&writer).await, 2);
    let written = Instant::now();
    pair.kill_primary().await;
    assert_eq!(Pair::values(&pair.replica).await, 1, "the invalidation was to be lost");
    pair.promote_replica().await;
    site.keeps_the_bound(&[&reader, &writer], written, 2).await;
    until(|| is_used(&reader) && is_used(&writer)).await;

    let third = pair.cache(&site).await;
    site.keeps_the_bound(&[&reader, &writer, &third], written, 2).await;
    site.fills(&writer).await;
}

/// T17: the load is slower than the failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_end_was_lost_in_a_failover_lets_no_old_value_be_answered() {
    let (mut pair, site) = (Pair::start().await, Site::new());
    let (writer, reader) = (pair.cache(&site).await, pair.cache(&site).await);
    // By versions this process would know better.
    site.source.unversioned();
    site.source.shut();
    let load = {
        let (reader, site) = (reader.clone(), site.clone());
        tokio::spawn(async move { site.get(&reader).await })
    };
    site.source.read().await;
    pair.wait_for_replica().await;

    pair.lose_replication();
    site.put(&writer).await;
    pair.kill_primary().await;
    pair.promote_replica().await;
    until(|| is_used(&reader) && is_used(&writer)).await;
    // The new primary is cleaned of what it hasn't heard of.
    let broken = async || keys(&pair.replica, ":l:").await.is_empty();
    devkit::wait_until("the old lease is broken", LIMIT, broken).await.unwrap();
    site.source.open();

    let old = load.await.unwrap();
    assert_eq!((serial(&old), old.stored), (1, false));
    assert_eq!(filled(&reader, "lost"), 1.0);
    for cache in [&writer, &reader, &pair.cache(&site).await] {
        assert_eq!(serial(&site.get(cache).await), 2);
    }
}

/// T17: a primary that was cut off is made a replica of its successor, and so loses what only it knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_back_in_time_is_noticed() {
    let (mut pair, site) = (Pair::start().await, Site::new());
    let cache = pair.cache(&site).await;
    site.get(&cache).await;
    pair.wait_for_replica().await;
    pair.lose_replication();
    let (version, written) = (site.put(&cache).await, Instant::now());
    let before = gaps(&cache);

    let _: () = raw(&pair.replica, &["REPLICAOF", "NO", "ONE"]).await;
    let _: () = raw(&pair.replica, &["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
    let _: () = raw(&pair.primary, &["REPLICAOF", "127.0.0.1", &pair.replica.port().to_string()]).await;
    wait_until_it_follows(&pair.primary, &pair.replica).await;
    let _: () = raw(&pair.primary, &["REPLICAOF", "NO", "ONE"]).await;

    until(|| gaps(&cache) > before && is_used(&cache)).await;
    site.keeps_the_bound(&[&cache], written, version).await;
    let fresh = pair.cache(&site).await;
    site.keeps_the_bound(&[&cache, &fresh], written, version).await;
}

/// T11, T17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_during_a_failover_is_known_before_the_new_primary_is_believed() {
    let (mut pair, site) = (Pair::start().await, Site::new());
    let (writer, reader) = (pair.cache(&site).await, pair.cache(&site).await);
    assert_eq!(site.get(&reader).await.entry.version, 1);
    pair.wait_for_replica().await;

    pair.kill_primary().await;
    let (version, written) = (site.put(&writer).await, Instant::now());
    // The writer is gone with its retries: what it left must do.
    writer.shutdown(Duration::ZERO).await;
    assert_eq!(Pair::values(&pair.replica).await, 1, "there is an old value to be found");
    pair.promote_replica().await;
    site.keeps_the_bound(&[&reader], written, version).await;
    until(|| is_used(&reader)).await;
    let fresh = pair.cache(&site).await;
    site.keeps_the_bound(&[&reader, &fresh], written, version).await;
}

/// One that was cut off may go on answering, and be believed by those who haven't heard of its successor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_that_still_answers_somebody_makes_nobody_stale() {
    let (mut pair, site) = (Pair::start().await, Site::new());
    let (moved, left) = (pair.cache(&site).await, pair.cache(&site).await);
    site.get(&left).await;
    site.get(&moved).await;
    pair.wait_for_replica().await;
    pair.lose_replication();
    let _: () = raw(&pair.replica, &["REPLICAOF", "NO", "ONE"]).await;
    pair.ways[0].forward_to(pair.replica.address());
    pair.ways[0].cut();
    for _ in 0..2 {
        for cache in [&moved, &left] {
            let (version, written) = (site.put(cache).await, Instant::now());
            site.keeps_the_bound(&[&left, &moved], written, version).await;
        }
    }
    until(|| is_used(&moved) && is_used(&left)).await;
    // Nor does anyone who comes anew to either.
    let version = site.put(&moved).await;
    let written = Instant::now();
    let fresh = pair.cache(&site).await;
    site.keeps_the_bound(&[&fresh, &left, &moved], written, version).await;
}
