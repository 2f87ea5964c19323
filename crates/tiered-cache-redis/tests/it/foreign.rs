//! Whatever stands in Redis is only bytes: what can't be read is a miss that is removed and counted.

use std::time::Duration;

use tiered_cache::{RemoteError, Tier};

use crate::site::{Site, ask, commands, connect_patiently, filled, is_used, raw, the_key};
use crate::source::{metric, until};

fn unreadable(cache: &tiered_cache::TieredCache, why: &str) -> f64 {
    metric(cache, &format!(r#"cache_codec_errors_total{{cache="user",result="{why}"}}"#))
}

async fn write(server: &devkit::Redis, cmd: &[&[u8]]) {
    let mut connection = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut all = redis::Cmd::new();
    cmd.iter().for_each(|part| _ = all.arg(*part));
    all.exec_async(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_cannot_be_read_is_one_miss_that_is_removed_and_counted() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let a = site.cache(server.url()).await;
    site.get(&a).await;
    let values = the_key(&server, ":v:").await;
    let good: Vec<u8> = raw(&server, &["HGET", &values, "s1"]).await;
    let flipped = [&good[..good.len() - 1], &[!good[good.len() - 1]]].concat();
    let wrong_stamp = [&b"never and nothing"[..16], &good[16..]].concat();
    let cases: [(&[u8], &str); 8] = [
        (b"", "malformed"),
        (b"123", "malformed"),
        (b"short", "stamp"),
        (b"0123456789012345garbage of any kind", "malformed"),
        (&[0xff; 4_096], "stamp"),
        (&wrong_stamp, "stamp"),
        (&flipped, "checksum"),
        (&good[..good.len() - 20], "checksum"),
    ];
    for (bytes, why) in cases {
        write(&server, &[b"HSET", values.as_bytes(), b"s1", bytes]).await;
        // Each replica is new, and so has nothing of its own.
        let b = site.cache(server.url()).await;
        let before = commands(&server).await;
        assert_eq!((site.get(&b).await.tier, filled(&b, "stored")), (Tier::Source, 1.0), "{why}");
        // Pulses and the bus of two replicas are among them.
        assert!(commands(&server).await - before < 300, "{}", commands(&server).await - before);
        assert_eq!(unreadable(&b, why), 1.0, "{why}");
        assert!(is_used(&b));
        let c = site.cache(server.url()).await;
        assert_eq!(site.get(&c).await.tier, Tier::L2, "what was stored instead can be read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_of_another_type_in_place_of_a_value_its_lease_or_its_mark_is_one_miss() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let a = site.cache(server.url()).await;
    site.get(&a).await;
    let values = the_key(&server, ":v:").await;
    let (lease, mark) = (values.replace(":v:", ":l:"), values.replace(":v:", ":m:"));
    for (place, kind) in [(&values, "SET"), (&lease, "SET"), (&lease, "LPUSH"), (&mark, "LPUSH")] {
        let _: () = raw(&server, &["DEL", &values, &lease, &mark]).await;
        let _: () = raw(&server, &[kind, place, "something else"]).await;
        let b = site.cache(server.url()).await;
        let begun = std::time::Instant::now();
        assert_eq!((site.get(&b).await.tier, filled(&b, "stored")), (Tier::Source, 1.0), "{kind} {place}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{kind} {place}: {:?}", begun.elapsed());
        assert_eq!(unreadable(&b, "type"), f64::from(u8::from(*place == values)));
        let c = site.cache(server.url()).await;
        assert_eq!(site.get(&c).await.tier, Tier::L2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_fields_of_the_state_end_with_the_next_pulses() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let a = site.cache(server.url()).await;
    let state = the_key(&server, ":state").await;
    for field in
        ["id", "courier", "until", "cleaned", "cleaned_at", "blind", "furthest", "told_from", "told_to", "sequence"]
    {
        for value in [&b"something else"[..], b"-1", b"1e400", b"\xff\xfe", b""] {
            write(&server, &[b"HSET", state.as_bytes(), field.as_bytes(), value]).await;
            site.put(&a).await;
            site.get(&a).await;
            let fits = async || {
                site.put(&a).await;
                site.read(&a, rand::random_range(10..u64::MAX)).await.unwrap();
                is_used(&a)
            };
            let name = format!("{field} {}", String::from_utf8_lossy(value));
            devkit::wait_until(&name, Duration::from_secs(20), fits).await.unwrap();
            site.fills(&a).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_entries_of_the_bus_cost_a_bounded_number_of_commands() {
    let (server, site) = (devkit::Redis::start().await.unwrap(), Site::new());
    let (a, b) = (site.cache(server.url()).await, site.cache(server.url()).await);
    let bus = the_key(&server, ":bus").await;
    for entry in [&["x", "y"][..], &["c", "zzz", "o", "1", "s", "7"], &["c", "", "o", "x", "s", ""]] {
        let _: String = raw(&server, &[&["XADD", &bus, "*"], entry].concat()).await;
        let (version, written) = (site.put(&a).await, std::time::Instant::now());
        site.keeps_the_bound(&[&a, &b], written, version).await;
    }
    let before = commands(&server).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let commands = commands(&server).await - before;
    assert!(commands < 400, "{commands} commands of two replicas in two seconds");
    crate::site::hears_the_bus(&b).await;
}

/// As whoever reads `/api/cache/{key}` may ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_another_kind_than_expected_costs_no_connection() {
    let server = devkit::Redis::start().await.unwrap();
    let redis = connect_patiently(server.url());
    until(|| redis.connections() == 4).await;
    write(&server, &[b"SET", b"bytes", b"\xff\xfe not text"]).await;
    write(&server, &[b"LPUSH", b"list", b"1"]).await;
    let clients = async || ask::<String>(&server.url(), &["CLIENT", "LIST", "TYPE", "normal"]).await.unwrap();
    let ids = async || -> Vec<String> {
        let all = clients().await;
        let id = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        // The last is the one that asks.
        all.lines().take(4).map(id).collect()
    };
    let before = ids().await;
    for _ in 0..100 {
        let text = redis.query::<String>(redis::cmd("GET").arg("bytes")).await;
        assert!(matches!(text, Err(RemoteError::Failed(_))), "{text:?}");
        let other = redis.query::<String>(redis::cmd("GET").arg("list")).await;
        assert!(matches!(other, Err(RemoteError::WrongType)), "{other:?}");
        assert_eq!(redis.connections(), 4);
    }
    assert_eq!(ids().await, before);
}
