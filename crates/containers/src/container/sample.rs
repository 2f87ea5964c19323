//! One reading of a container's counters, from cgroup v1 or v2.

use std::time::UNIX_EPOCH;

use bollard::models::{ContainerBlkioStatEntry, ContainerMemoryStats, ContainerStatsResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counters since the container's start, and its memory now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// By the engine's clock, in seconds since 1970.
    pub at: f64,
    /// Seconds on a CPU.
    pub cpu_seconds: f64,
    /// CPUs that the host has online.
    pub host_cpus: u64,
    /// Enforcement periods of the quota.
    pub periods: u64,
    /// Those in which the container had to wait.
    pub throttled_periods: u64,
    /// Seconds waited.
    pub throttled_seconds: f64,
    /// Memory, in bytes.
    pub memory: Memory,
    /// Network, all interfaces together.
    pub network: Network,
    /// Bytes read from block devices.
    pub read_bytes: u64,
    /// Bytes written to block devices; on cgroup v1 without those that went through the page cache.
    pub written_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// Memory by what it is used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// Everything charged to the container.
    pub usage: u64,
    /// `usage` without the file cache that wasn't used lately.
    pub working_set: u64,
    /// `usage` without all that the kernel takes back when memory runs short; at the limit it kills.
    pub unreclaimable: u64,
    /// Heaps and stacks.
    pub anon: u64,
    /// Page cache, tmpfs included.
    pub file: u64,
    /// Kernel objects; cgroup v1 doesn't say.
    pub slab: Option<u64>,
    /// Shared memory and tmpfs.
    pub shared: u64,
    /// The limit, as the engine reports it: without one, the host's memory.
    pub limit: u64,
}

/// Network counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets in error, both ways.
    pub errors: u64,
    /// Packets dropped, both ways.
    pub drops: u64,
}

impl Sample {
    /// Reads the engine's answer; none where the container doesn't run.
    pub fn read(stats: &ContainerStatsResponse) -> Option<Self> {
        let cpu = stats.cpu_stats.as_ref()?;
        let usage = cpu.cpu_usage.as_ref()?.total_usage.filter(|nanos| *nanos > 0)?;
        let throttling = cpu.throttling_data.clone().unwrap_or_default();
        let block = stats.blkio_stats.as_ref().and_then(|block| block.io_service_bytes_recursive.as_deref());
        Some(Self {
            at: seconds(stats.read.as_deref()?)?,
            cpu_seconds: nanos(usage),
            host_cpus: u64::from(cpu.online_cpus.unwrap_or(1)).max(1),
            periods: throttling.periods.unwrap_or(0),
            throttled_periods: throttling.throttled_periods.unwrap_or(0),
            throttled_seconds: nanos(throttling.throttled_time.unwrap_or(0)),
            memory: Memory::read(stats.memory_stats.as_ref()?),
            network: network(stats),
            read_bytes: sum(block, "read"),
            written_bytes: sum(block, "write"),
            pids: stats.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or(0),
        })
    }
}

impl Memory {
    /// cgroup v1 has counters of the whole subtree, which start with `total_`; v2 has no others.
    fn read(stats: &ContainerMemoryStats) -> Self {
        let counters = stats.stats.clone().unwrap_or_default();
        let get = |name: &str| counters.get(name).copied();
        let v1 = counters.contains_key("total_rss");
        let either = |old: &str, new: &str| get(if v1 { old } else { new }).unwrap_or(0);
        let usage = stats.usage.unwrap_or(0);
        let (inactive, active) =
            (either("total_inactive_file", "inactive_file"), either("total_active_file", "active_file"));
        let file = either("total_cache", "file");
        let shared = get(if v1 { "total_shmem" } else { "shmem" });
        Self {
            usage,
            working_set: usage.saturating_sub(inactive),
            unreclaimable: usage.saturating_sub(inactive + active + get("slab_reclaimable").unwrap_or(0)),
            anon: either("total_rss", "anon"),
            file,
            slab: get("slab"),
            // The engine leaves v1's counter out. What is cached and belongs to no file is shared memory.
            shared: shared.unwrap_or(file.saturating_sub(inactive + active)),
            limit: stats.limit.unwrap_or(0),
        }
    }
}

fn network(stats: &ContainerStatsResponse) -> Network {
    let mut all = Network::default();
    for one in stats.networks.iter().flat_map(|networks| networks.values()) {
        all.received_bytes += one.rx_bytes.unwrap_or(0);
        all.sent_bytes += one.tx_bytes.unwrap_or(0);
        all.errors += one.rx_errors.unwrap_or(0) + one.tx_errors.unwrap_or(0);
        all.drops += one.rx_dropped.unwrap_or(0) + one.tx_dropped.unwrap_or(0);
    }
    all
}

/// v1 writes `Read`, v2 `read`.
fn sum(entries: Option<&[ContainerBlkioStatEntry]>, operation: &str) -> u64 {
    let entries = entries.unwrap_or_default().iter();
    let wanted = entries.filter(|entry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(operation)));
    wanted.filter_map(|entry| entry.value).sum()
}

fn nanos(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Seconds since 1970, of a time that the engine wrote; it writes the year 1 for never.
#[expect(clippy::disallowed_methods, reason = "both ends are given; no clock is read")]
pub fn seconds(time: &str) -> Option<f64> {
    Some(humantime::parse_rfc3339(time).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}
