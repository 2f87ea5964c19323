//! A Redis in cluster mode: all keys of one script are in one hash slot, and a node that has another slot says so.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tiered_cache::Tier;

use crate::site::{Site, ask, is_used};
use crate::source::until;
use crate::source::way::Down;

/// One node of a cluster.
struct Node {
    child: Child,
    folder: PathBuf,
    ports: [u16; 2],
}

impl Node {
    async fn start() -> Self {
        let program = devkit::find("redis-server").or_else(|| devkit::find("valkey-server"));
        let program = program.unwrap_or_else(|| panic!("install redis-server to run this test"));
        let ports = [devkit::free_port().unwrap(), devkit::free_port().unwrap()];
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("node-{}", ports[0]));
        std::fs::create_dir_all(&folder).unwrap();
        let child = Command::new(program)
            .args(["--bind", "127.0.0.1", "--save", "", "--cluster-enabled", "yes"])
            .args(["--port", &ports[0].to_string(), "--cluster-port", &ports[1].to_string()])
            .arg("--dir")
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let node = Self { child, folder, ports };
        until(|| TcpStream::connect(("127.0.0.1", node.ports[0])).is_ok()).await;
        node
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.ports[0])
    }

    async fn take(&self, first: u16, last: u16) {
        self.cluster(&["ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
    }

    async fn cluster(&self, cmd: &[&str]) -> String {
        let answer: redis::Value = ask(&self.url(), &[&["CLUSTER"], cmd].concat()).await.unwrap();
        redis::from_redis_value(answer).unwrap_or_default()
    }

    async fn works(&self) {
        let works = async || self.cluster(&["INFO"]).await.contains("cluster_state:ok");
        devkit::wait_until("the cluster works", Duration::from_secs(60), works).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_works_on_a_node_that_has_all_slots() {
    let (node, site) = (Node::start().await, Site::new());
    node.take(0, 16_383).await;
    node.works().await;
    let log = site.source.log.way();
    let a = site.cache_of(crate::site::connect_patiently(node.url()), log.clone()).await;
    let b = site.cache(node.url()).await;
    site.get(&a).await;
    assert_eq!(site.get(&b).await.tier, Tier::L2);
    for _ in 0..3 {
        let (version, written) = (site.put(&a).await, Instant::now());
        site.keeps_the_bound(&[&a, &b], written, version).await;
        let (version, written) = (site.source.plain_write().version, Instant::now());
        site.keeps_the_bound(&[&a, &b], written, version).await;
    }
    site.source.plain_write_all();
    // A courier that tells a blind one, and one that leaves.
    log.cut(Some(Down::Refused));
    until(|| a.health().log_lag > Duration::from_secs(1) && a.health().fence_open).await;
    let (version, written) = (site.source.plain_write().version, Instant::now());
    site.keeps_the_bound(&[&a, &b], written, version).await;
    assert!(is_used(&a) && is_used(&b));
    b.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_have_the_slot_leads_to_the_one_that_has_it() {
    let (one, two, site) = (Node::start().await, Node::start().await, Site::new());
    one.take(0, 8_191).await;
    two.take(8_192, 16_383).await;
    one.cluster(&["MEET", "127.0.0.1", &two.ports[0].to_string(), &two.ports[1].to_string()]).await;
    one.works().await;
    two.works().await;
    let (a, b) = (site.cache(one.url()).await, site.cache(two.url()).await);
    site.get(&a).await;
    assert_eq!(site.get(&b).await.tier, Tier::L2, "both are on the same node");
    for cache in [&a, &b] {
        let (version, written) = (site.put(cache).await, Instant::now());
        site.keeps_the_bound(&[&a, &b], written, version).await;
        crate::site::hears_the_bus(cache).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lacks_slots_makes_nobody_stale_and_is_told() {
    let (node, site) = (Node::start().await, Site::new());
    node.take(0, 16_383).await;
    node.works().await;
    let (a, b) = (site.cache(node.url()).await, site.cache(node.url()).await);
    site.get(&a).await;
    site.get(&b).await;
    node.cluster(&["DELSLOTSRANGE", "0", "16383"]).await;
    let (version, written) = (site.put(&a).await, Instant::now());
    site.keeps_the_bound(&[&a, &b], written, version).await;
    until(|| crate::site::unfit(&a).contains("CLUSTERDOWN")).await;
    node.take(0, 16_383).await;
    until(|| is_used(&a) && is_used(&b)).await;
    site.fills(&a).await;
}
