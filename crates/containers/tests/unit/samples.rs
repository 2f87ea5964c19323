//! What the engine answers on cgroup v1 and v2, read alike.

use crate::container::load::Load;
use crate::container::sample::Sample;
use bollard::models::ContainerStatsResponse;

/// As this machine's engine wrote it.
const V1: &str = include_str!("fixtures/stats-v1.json");
/// The fields that an engine writes on a host with cgroup v2, with made-up numbers: see the folder's README.
const V2: &str = include_str!("fixtures/stats-v2.json");

fn sample(text: &str) -> Sample {
    Sample::read(&serde_json::from_str::<ContainerStatsResponse>(text).unwrap()).unwrap()
}

#[test]
fn memory_on_cgroup_v2_is_told_apart_by_what_can_be_reclaimed() {
    let memory = sample(V2).memory;
    assert_eq!(memory.working_set, 70_000_000, "usage without inactive file cache");
    assert_eq!(memory.unreclaimable, 44_000_000, "and without active file cache and reclaimable slab");
    assert_eq!(
        (memory.anon, memory.file, memory.shared, memory.slab),
        (30_000_000, 55_000_000, 5_000_000, Some(8_000_000))
    );
}

#[test]
fn memory_on_cgroup_v1_uses_the_counters_of_the_whole_subtree() {
    let memory = sample(V1).memory;
    let raw: serde_json::Value = serde_json::from_str(V1).unwrap();
    let stats = &raw["memory_stats"];
    let get = |name: &str| stats["stats"][name].as_u64().unwrap();
    let usage = stats["usage"].as_u64().unwrap();
    assert_eq!(memory.anon, get("total_rss"));
    assert_eq!(memory.working_set, usage - get("total_inactive_file"));
    assert_eq!(memory.unreclaimable, usage - get("total_inactive_file") - get("total_active_file"));
    assert_eq!((memory.slab, memory.limit), (None, 67_108_864));
}

#[test]
fn devices_and_interfaces_are_summed() {
    let sample = sample(V2);
    assert_eq!((sample.read_bytes, sample.written_bytes), (8_340_032, 1_048_576));
    let network = sample.network;
    assert_eq!((network.received_bytes, network.sent_bytes, network.errors, network.drops), (2700, 100, 1, 6));
}

#[test]
fn rates_are_what_came_between_two_samples() {
    let first = sample(V2);
    let mut last = first.clone();
    last.at += 2.0;
    last.cpu_seconds += 3.0;
    last.periods += 20;
    last.throttled_periods += 5;
    last.written_bytes += 4_000_000;
    let load = Load::between(&first, &last).unwrap();
    assert!((load.cpus - 1.5).abs() < 1e-6 && (load.throttled_percent - 25.0).abs() < 1e-6);
    assert!((load.write_rate - 2e6).abs() < 1.0 && load.read_rate == 0.0);
}

#[test]
fn counters_that_began_anew_give_no_rates() {
    let first = sample(V2);
    let mut last = first.clone();
    last.at += 2.0;
    last.cpu_seconds = 0.1;
    assert_eq!(Load::between(&first, &last), None);
}

#[test]
fn a_container_that_does_not_run_has_no_sample() {
    let stopped = V2.replace("\"total_usage\": 2500000000", "\"total_usage\": 0");
    assert_eq!(Sample::read(&serde_json::from_str(&stopped).unwrap()), None);
}
