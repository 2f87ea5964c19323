//! What the cache promises while Redis is well.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tiered_cache::Tier;

use crate::site::{Site, connect_patiently, filled, gaps, keys, raw, the_key};
use crate::source::{key, metric, policy, serial, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_goes_through_all_tiers_and_a_write_removes_it_from_all() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);

    let loaded = site.get(&a).await;
    assert_eq!((loaded.tier, loaded.stored), (Tier::Source, true));
    assert_eq!(site.get(&a).await.tier, Tier::L1);
    let copied = site.get(&b).await;
    assert_eq!((copied.tier, copied.entry.version), (Tier::L2, 1));
    assert_eq!(&copied.entry.value.as_ref().unwrap().etag[..], b"W/\"v1\"");
    assert!(copied.ttl <= Duration::from_secs(300));

    assert_eq!(site.put(&a).await, 2);
    assert_eq!(keys(&server, ":v:").await, Vec::<String>::new());
    until(|| b.peek(&key(1), &policy()).is_none()).await;
    assert_eq!(site.get(&b).await.entry.version, 2);
    assert_eq!(site.get(&a).await.entry.version, 2);
    assert_eq!(site.source.loads(), 2);
}

/// T01 on Redis
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_refuses_a_value_read_before_a_write() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    // By a version this replica would know better itself.
    site.source.unversioned();
    site.source.shut();
    let reader = {
        let (a, site) = (a.clone(), site.clone());
        tokio::spawn(async move { site.get(&a).await })
    };
    site.source.read().await;
    site.put(&b).await;
    site.source.open();

    let old = reader.await.unwrap();
    assert_eq!((serial(&old), old.stored), (1, false));
    assert_eq!(filled(&a, "lost"), 1.0);
    assert_eq!(serial(&site.get(&a).await), 2);
}

/// T05 on Redis
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_on_three_replicas_cause_one_load_with_redis_between_them() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    site.source.slow(Duration::from_millis(300));
    let replica = || site.cache(server.url());
    let replicas = [replica().await, replica().await, replica().await];
    let readers: Vec<_> = (0..1_000)
        .map(|i| {
            let (cache, site) = (replicas[i % 3].clone(), site.clone());
            tokio::spawn(async move { site.get(&cache).await.entry.version })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 1);
    }
    assert_eq!(site.source.loads(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_older_than_the_one_in_redis_is_not_stored() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    site.source.set_version(2);
    site.get(&a).await;
    // As if the value had gone and a source that lags behind were asked, but for another schema's value that is there.
    let values = the_key(&server, ":v:").await;
    let _: () = raw(&server, &["HDEL", &values, "s1"]).await;
    let _: () = raw(&server, &["HSET", &values, "s2", "another schema's"]).await;
    site.source.set_version(1);
    assert!(!site.get(&b).await.stored);
    assert_eq!(filled(&b, "older"), 1.0);
    site.source.set_version(2);
    assert!(site.get(&b).await.stored);
    let schemas: Vec<String> = raw(&server, &["HKEYS", &values]).await;
    assert!(schemas.contains(&"s2".to_owned()), "the same version in another shape stays: {schemas:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_past_every_cache_is_removed_from_redis_by_one_of_them() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    site.get(&a).await;
    site.get(&b).await;
    assert_eq!(keys(&server, ":v:").await.len(), 1);

    let (version, written) = (site.source.plain_write().version, Instant::now());
    let removed = async || keys(&server, ":v:").await.is_empty();
    site.keeps_the_bound(&[&a, &b], written, version).await;
    assert!(site.source.loads() >= 2);
    // Read by nobody, it goes as well.
    let (version, written) = (site.source.plain_write().version, Instant::now());
    devkit::wait_until("the old value is removed", Duration::from_secs(60), removed).await.unwrap();
    site.keeps_the_bound(&[&a, &b], written, version).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_named_to_other_replicas_and_those_that_name_none_are_heard_too() {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let replica = |name, link| site.builder(&connect_patiently(server.url()), site.source.log.way()).links(name, link);
    let own = |_: &tracing::Span, _: &str| TOLD.lock().unwrap().push("its own".to_owned());
    let writer = replica(|| "the writer".to_owned(), own).build();
    let nameless = replica(String::new, |_, _| ()).build();
    let reader = replica(String::new, |_, cause| TOLD.lock().unwrap().push(cause.to_owned())).build();
    for cache in [&reader, &nameless, &writer] {
        until(|| crate::site::is_used(cache)).await;
        crate::site::hears_the_bus(cache).await;
    }

    let heard = || metric(&nameless, "cache_invalidate_visible_seconds_count");
    let (before, gaps_before) = (heard(), gaps(&reader));
    site.put(&nameless).await;
    until(|| heard() > before).await;
    site.put(&writer).await;
    until(|| !TOLD.lock().unwrap().is_empty()).await;
    assert!(TOLD.lock().unwrap().iter().all(|cause| cause == "the writer"));
    assert_eq!(gaps(&reader), gaps_before);
}
