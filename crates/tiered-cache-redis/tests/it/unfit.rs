//! A Redis that answers and is of no use: it must cost the service L2 alone, and be told.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tiered_cache::{Tier, TieredCache};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::site::{Site, commands, connect_patiently, is_used, raw, unfit};
use crate::source::until;

/// The warnings of everything that runs on this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("tiered_cache")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().name().to_owned());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

/// Somebody writes, and nobody answers what was before it for longer than promised, nor does anything fail.
async fn a_write_is_seen(site: &Site, a: &TieredCache, b: &TieredCache) {
    let (version, written) = (site.put(a).await, Instant::now());
    site.keeps_the_bound(&[a, b], written, version).await;
    assert_eq!(site.get(a).await.tier, Tier::L1, "the log says that it is right");
}

#[tokio::test]
async fn a_redis_that_refuses_writes_makes_nobody_stale_and_is_told_once_in_its_own_words() {
    let (server, site, warnings) = (devkit::Redis::start().await.unwrap(), Site::new(), Warnings::default());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    site.get(&a).await;
    site.get(&b).await;
    let _listening = tracing::subscriber::set_default(warnings.clone());
    let _: () = raw(&server, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    // At once, before anybody has noticed.
    a_write_is_seen(&site, &a, &b).await;
    for cache in [&a, &b] {
        until(|| unfit(cache).contains("NOREPLICAS")).await;
        assert!(cache.health().fence_open);
    }
    a_write_is_seen(&site, &a, &b).await;
    let before = commands(&server).await;
    for id in 1_000..1_500 {
        assert_eq!(site.read(&a, id).await.unwrap().tier, Tier::Source);
    }
    let asked = commands(&server).await - before;
    assert!(asked < 500, "it was asked {asked} times for 500 values");
    let told = warnings.all();
    assert_eq!(told.iter().filter(|line| line.contains("NOREPLICAS")).count(), 2, "one of each: {told:#?}");
    assert_eq!(told.len(), 2, "{told:#?}");

    let _: () = raw(&server, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    until(|| is_used(&a) && is_used(&b)).await;
    site.fills(&a).await;
    a_write_is_seen(&site, &a, &b).await;
    assert_eq!(warnings.all().len(), 2);
}

#[tokio::test]
async fn a_redis_that_became_a_replica_makes_nobody_stale_and_is_told_once() {
    let (server, site, warnings) = (devkit::Redis::start().await.unwrap(), Site::new(), Warnings::default());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    site.get(&a).await;
    site.get(&b).await;
    let _listening = tracing::subscriber::set_default(warnings.clone());
    let port = devkit::free_port().unwrap().to_string();
    let _: () = raw(&server, &["REPLICAOF", "127.0.0.1", &port]).await;
    a_write_is_seen(&site, &a, &b).await;
    until(|| !unfit(&a).is_empty() && !unfit(&b).is_empty()).await;
    a_write_is_seen(&site, &a, &b).await;
    let told = warnings.all();
    assert_eq!(told.len(), 2, "one of each: {told:#?}");

    let _: () = raw(&server, &["REPLICAOF", "NO", "ONE"]).await;
    until(|| is_used(&a) && is_used(&b)).await;
    site.fills(&a).await;
    assert_eq!(warnings.all().len(), 2);
}

async fn user(server: &devkit::Redis, rights: &[&str]) -> String {
    let _: () = raw(server, &[&["ACL", "SETUSER", "plinth", "reset", "on", ">secret"], rights].concat()).await;
    format!("redis://plinth:secret@127.0.0.1:{}", server.port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_dangerous_or_administrative_rights_is_enough() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let url = user(&server, &["~{cache}:*", "+@all", "-@dangerous", "-@admin"]).await;
    let (a, b) = (site.cache(url.clone()).await, site.cache(url).await);
    site.get(&a).await;
    assert_eq!(site.get(&b).await.tier, Tier::L2);
    a_write_is_seen(&site, &a, &b).await;
    site.source.plain_write();
    site.fills(&b).await;
    assert!(is_used(&a) && is_used(&b));
}

/// A right that a script lacks is told in other words than one that the command lacks.
fn is_denied(cache: &TieredCache) -> bool {
    ["NOPERM", "can't run this command", "ACL failure"].iter().any(|words| unfit(cache).contains(words))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_missing_or_taken_away_are_told_and_make_nobody_stale() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let enough = ["~{cache}:*", "+@all", "-@dangerous"];
    for taken in ["-evalsha", "-@write", "resetkeys"] {
        let url = user(&server, &[&enough[..], &[taken]].concat()).await;
        let (a, b) = (site.begin(url.clone()), site.begin(url.clone()));
        for cache in [&a, &b] {
            until(|| is_denied(cache)).await;
        }
        a_write_is_seen(&site, &a, &b).await;

        user(&server, &enough).await;
        until(|| is_used(&a) && is_used(&b)).await;
        site.fills(&a).await;
        a_write_is_seen(&site, &a, &b).await;

        let _: () = raw(&server, &["ACL", "SETUSER", "plinth", taken]).await;
        a_write_is_seen(&site, &a, &b).await;
        until(|| is_denied(&a) && is_denied(&b)).await;
    }
}

#[tokio::test]
async fn a_bus_that_cannot_be_read_is_told_once_and_makes_nobody_stale() {
    let (server, site, warnings) = (devkit::Redis::start().await.unwrap(), Site::new(), Warnings::default());
    let _listening = tracing::subscriber::set_default(warnings.clone());
    let url = user(&server, &["~{cache}:*", "+@all", "-xread"]).await;
    let (a, b) = (site.begin(url.clone()), site.begin(url));
    for cache in [&a, &b] {
        until(|| is_denied(cache)).await;
    }
    a_write_is_seen(&site, &a, &b).await;
    site.fills(&a).await;
    assert_eq!(warnings.all().len(), 2, "one of each cache: {:?}", warnings.all());

    let _: () = raw(&server, &["ACL", "SETUSER", "plinth", "+xread"]).await;
    until(|| is_used(&a) && is_used(&b)).await;
}

#[tokio::test]
async fn a_right_that_pulses_do_not_need_is_missed_once_however_well_they_go() {
    let (server, site, warnings) = (devkit::Redis::start().await.unwrap(), Site::new(), Warnings::default());
    let a = site.cache(user(&server, &["~{cache}:*", "+@all"]).await).await;
    let _listening = tracing::subscriber::set_default(warnings.clone());
    // What only those need who ask for a lease.
    let _: () = raw(&server, &["ACL", "SETUSER", "plinth", "-pttl"]).await;
    let (begun, mut id, mut told) = (Instant::now(), 1_000, None);
    while told.is_none_or(|told: Instant| told.elapsed() < Duration::from_secs(3)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "never told");
        site.read(&a, id).await.unwrap();
        id += 1;
        if told.is_none() && is_denied(&a) {
            told = Some(Instant::now());
        }
        assert!(told.is_none() || is_denied(&a), "it is of no use, whatever pulses say");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(warnings.all().len(), 1, "{:?}", warnings.all());

    let _: () = raw(&server, &["ACL", "SETUSER", "plinth", "+pttl"]).await;
    site.fills(&a).await;
    assert!(is_used(&a));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let url = user(&server, &["~*", "+@all"]).await.replace("secret", "wrong");
    let a = site.builder(&connect_patiently(url), site.source.log.way()).build();
    until(|| a.health().fence_open).await;
    assert_eq!(site.get(&a).await.tier, Tier::Source);
    until(|| unfit(&a).contains("authentication failed")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_of_another_type_in_place_of_the_caches_own_keys_is_told_and_makes_nobody_stale() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    for of in [":state", ":replicas", ":bus"] {
        let its = crate::site::the_key(&server, of).await;
        let _: () = raw(&server, &["DEL", &its]).await;
        let _: () = raw(&server, &["SET", &its, "something else"]).await;
        a_write_is_seen(&site, &a, &b).await;
        until(|| unfit(&a).contains("another type")).await;
        let before = commands(&server).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let asked = commands(&server).await - before;
        assert!(asked < 400, "{asked} commands of two replicas in two seconds");
        let _: () = raw(&server, &["DEL", &its]).await;
        until(|| is_used(&a) && is_used(&b)).await;
        site.fills(&a).await;
    }
}
