//! A Redis that isn't there, is silent, or forgets what it was sent.

use std::time::{Duration, Instant};

use devkit::{Fault, FaultProxy};
use tiered_cache::{RemoteError, Tier};

use crate::site::{Site, connect, filled, gaps, hears_the_bus, is_used, raw, unfit};
use crate::source::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_at_the_start_the_cache_works_and_finds_it_later() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    server.stop().await.unwrap();
    let a = site.begin(server.url());
    until(|| a.health().fence_open).await;
    assert_eq!(site.get(&a).await.tier, Tier::Source);
    assert_eq!(site.get(&a).await.tier, Tier::L1);
    assert!(unfit(&a).contains("no connection"), "{}", unfit(&a));
    server.start_again().await.unwrap();
    until(|| is_used(&a)).await;
    site.fills(&a).await;
}

/// T12 on Redis
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_made_again_and_the_bus_goes_on_where_it_was() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let a = site.cache(server.url()).await;
    let b = site.cache(format!("redis://{}", proxy.addr())).await;
    site.get(&b).await;
    let before = gaps(&b);
    proxy.set(Fault::Refuse);
    proxy.cut();
    for _ in 0..50 {
        site.put(&a).await;
    }
    let written = Instant::now();
    site.keeps_the_bound(&[&b], written, 51).await;
    proxy.set(Fault::None);
    until(|| is_used(&b)).await;
    hears_the_bus(&b).await;
    assert_eq!(site.get(&b).await.entry.version, 51);
    assert_eq!(gaps(&b), before);
}

/// T15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_costs_requests_little_and_is_used_again_when_it_thaws() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let a = site.builder(&connect(server.url()), site.source.log.way()).build();
    until(|| is_used(&a)).await;
    site.get(&a).await;
    server.freeze().unwrap();

    let mut slow = 0;
    for id in 2..200 {
        let begun = Instant::now();
        site.read(&a, id).await.unwrap();
        slow += u32::from(begun.elapsed() > Duration::from_millis(90));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(slow <= 10, "{slow} requests waited for a frozen Redis");
    assert!(a.health().fence_open, "the log is read");
    assert!(!unfit(&a).is_empty());

    server.thaw().unwrap();
    let thawed = Instant::now();
    until(|| is_used(&a)).await;
    assert!(thawed.elapsed() < Duration::from_secs(10), "{:?}", thawed.elapsed());
    site.fills(&a).await;
}

/// However long an operation may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_does_not_keep_the_log_from_being_read() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let a = site.cache(server.url()).await;
    site.get(&a).await;
    server.freeze().unwrap();
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(4) {
        assert!(a.health().fence_open, "shut after {:?}", frozen.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.thaw().unwrap();
}

/// T16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_replaced() {
    let server = devkit::Redis::start().await.unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let redis = connect(format!("redis://{}", proxy.addr()));
    until(|| redis.connections() == 4).await;
    // Those that are open fall silent; new ones would be answered.
    proxy.set(Fault::HalfOpen);
    let (mut timeouts, begun) = (0, Instant::now());
    while redis.connections() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "still the silent ones after {timeouts} timeouts");
        match redis.ping(Duration::from_millis(100)).await {
            Err(RemoteError::Timeout) => timeouts += 1,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    // The pings of the watchdog alone would take half a second to find it out.
    assert!(timeouts <= 3, "{timeouts}");
    let begun = Instant::now();
    assert!(matches!(redis.ping(Duration::from_secs(5)).await, Err(RemoteError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_millis(50), "without a connection it fails at once");

    proxy.set(Fault::None);
    until(|| redis.connections() == 4).await;
    redis.ping(Duration::from_secs(5)).await.unwrap();
}

/// T16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_while_nobody_uses_it_is_replaced() {
    let server = devkit::Redis::start().await.unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let redis = connect(format!("redis://{}", proxy.addr()));
    until(|| redis.connections() == 4).await;
    let before = proxy.accepted();
    proxy.set(Fault::HalfOpen);
    until(|| proxy.accepted() >= before + 4 && redis.connections() == 4).await;
    redis.ping(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_do_not_grow_while_redis_is_a_black_hole() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let redis = connect(format!("redis://{}", proxy.addr()));
    let a = site.builder(&redis, site.source.log.way()).build();
    until(|| is_used(&a)).await;
    proxy.set(Fault::BlackHole);
    let begun = Instant::now();
    let mut id = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        id += 1;
        site.read(&a, id).await.unwrap();
        assert!(proxy.connections() <= 12, "{}", proxy.connections());
    }
    assert!(id > 50, "only {id} requests in 4 s");
    proxy.set(Fault::None);
    until(|| is_used(&a)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_redis_forgot_and_connections_that_it_closed_are_made_up_for() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    for round in 0..5 {
        let _: () = raw(&server, &["SCRIPT", "FLUSH"]).await;
        let before = filled(&a, "stored");
        site.read(&a, round + 100).await.unwrap();
        assert_eq!(filled(&a, "stored"), before + 1.0);
    }
    let _: u64 = raw(&server, &["CLIENT", "KILL", "TYPE", "normal"]).await;
    let (version, written) = (site.put(&a).await, Instant::now());
    site.keeps_the_bound(&[&a, &b], written, version).await;
    until(|| is_used(&a) && is_used(&b)).await;
    site.fills(&a).await;
}
