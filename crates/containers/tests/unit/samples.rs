//! What the engine answers on cgroup v1 and v2, read alike.

use crate::container::load::Load;
use crate::container::sample::{Network, Sample};
use bollard::models::ContainerStatsResponse;
use serde_json::{Value, json};

/// Of Engine 20.10 on cgroup v1; the others of 28.5 on v2: see the folder's README.
const V1: &str = include_str!("fixtures/stats-v1.json");
/// Burns CPU, with a quota and without a limit for memory.
const BUSY: &str = include_str!("fixtures/stats-v2-busy.json");
/// Wrote and read a file in a volume, holds 24 MiB, has no network.
const CACHE: &str = include_str!("fixtures/stats-v2-cache.json");
/// Was killed for memory, and doesn't run.
const STOPPED: &str = include_str!("fixtures/stats-stopped.json");
/// The service, in three networks.
const PLINTH: &str = include_str!("fixtures/stats-v2-plinth.json");

fn answer(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn sample(answer: &Value) -> Sample {
    Sample::read(&serde_json::from_value::<ContainerStatsResponse>(answer.clone()).unwrap()).unwrap()
}

/// The answer's own sample and the one before it, of which it has the CPU counters only.
fn pair(text: &str) -> (Sample, Sample) {
    let last = answer(text);
    let mut first = last.clone();
    (first["read"], first["cpu_stats"]) = (last["preread"].clone(), last["precpu_stats"].clone());
    (sample(&first), sample(&last))
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

#[test]
fn memory_on_cgroup_v2_is_told_apart_by_what_can_be_reclaimed() {
    let memory = sample(&answer(CACHE)).memory;
    assert_eq!((memory.usage, memory.limit), (78_004_224, 96 << 20));
    assert_eq!(memory.working_set, 78_004_224 - 50_331_648, "usage without inactive file cache");
    assert_eq!(memory.unreclaimable, 27_672_576 - 294_912 - 1_559_808, "and active file cache, reclaimable slab");
    assert_eq!((memory.anon, memory.file, memory.shared, memory.slab), (25_329_664, 50_626_560, 0, Some(1_726_648)));
    // Of one that reads no files next to nothing can be reclaimed.
    let memory = sample(&answer(PLINTH)).memory;
    assert_eq!((memory.working_set, memory.unreclaimable), (28_278_784 - 16_384, 28_262_400 - 8_192 - 123_048));
}

#[test]
fn memory_on_cgroup_v1_uses_the_counters_of_the_whole_subtree() {
    let raw = answer(V1);
    let memory = sample(&raw).memory;
    let stats = &raw["memory_stats"];
    let get = |name: &str| stats["stats"][name].as_u64().unwrap();
    let usage = stats["usage"].as_u64().unwrap();
    assert_eq!(memory.anon, get("total_rss"));
    assert_eq!(memory.working_set, usage - get("total_inactive_file"));
    assert_eq!(memory.unreclaimable, usage - get("total_inactive_file") - get("total_active_file"));
    assert_eq!((memory.slab, memory.limit), (None, 67_108_864));
}

#[test]
fn cpu_on_cgroup_v2_is_counted_without_a_number_for_each() {
    let (first, last) = pair(BUSY);
    assert_eq!((last.cpu_seconds, last.host_cpus), (2.668_585, 2));
    assert_eq!((last.periods, last.throttled_periods, last.throttled_seconds), (129, 127, 12.126_757));
    let load = Load::between(&first, &last).unwrap();
    assert!(near(load.cpus, 0.197_245 / load.seconds) && load.throttled_percent == 100.0, "{load:?}");

    let (first, last) = pair(PLINTH);
    let load = Load::between(&first, &last).unwrap();
    assert!(near(load.cpus, 0.591_879 / load.seconds), "{load:?}");
    assert!(near(load.throttled_percent, 100.0 / 13.0), "1 of 13 periods: {load:?}");
}

#[test]
fn a_container_without_a_limit_is_told_the_hosts_memory() {
    assert_eq!(sample(&answer(BUSY)).memory.limit, 4_111_917_056);
}

#[test]
fn devices_and_interfaces_are_summed() {
    let mut stats = answer(CACHE);
    let other = json!([{"major": 253, "minor": 0, "op": "read", "value": 1_000_000}]);
    let devices = &mut stats["blkio_stats"]["io_service_bytes_recursive"];
    *devices = [devices.as_array().unwrap().as_slice(), other.as_array().unwrap()].concat().into();
    let sample = sample(&stats);
    assert_eq!((sample.read_bytes, sample.written_bytes), (1_294_912, 50_331_648));

    assert_eq!(sample.network, Network::default());
    let network = self::sample(&answer(PLINTH)).network;
    let (received, sent) = (157_391 + 10_834 + 1_574, 223_931 + 20_803 + 126);
    assert_eq!((network.received_bytes, network.sent_bytes, network.errors, network.drops), (received, sent, 0, 0));
}

#[test]
fn lost_packets_of_both_ways_count() {
    let mut stats = answer(PLINTH);
    let lost = json!({"rx_errors": 1, "rx_dropped": 2, "tx_dropped": 4});
    stats["networks"]["eth1"] = lost;
    let network = sample(&stats).network;
    assert_eq!((network.errors, network.drops), (1, 6));
}

#[test]
fn rates_are_what_came_between_two_samples() {
    let first = sample(&answer(PLINTH));
    let mut last = first.clone();
    last.at += 2.0;
    last.cpu_seconds += 3.0;
    last.periods += 20;
    last.throttled_periods += 5;
    last.written_bytes += 4_000_000;
    let load = Load::between(&first, &last).unwrap();
    assert!(near(load.cpus, 1.5) && near(load.throttled_percent, 25.0));
    assert!((load.write_rate - 2e6).abs() < 1.0 && load.read_rate == 0.0);
}

#[test]
fn counters_that_began_anew_give_no_rates() {
    let first = sample(&answer(PLINTH));
    let mut last = first.clone();
    last.at += 2.0;
    last.cpu_seconds = 0.1;
    assert_eq!(Load::between(&first, &last), None);
}

#[test]
fn a_container_that_does_not_run_has_no_sample() {
    assert_eq!(Sample::read(&serde_json::from_str(STOPPED).unwrap()), None);
}
