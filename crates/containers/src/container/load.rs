//! What a container did between two samples, as rates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sample::{Memory, Sample};

/// Rates over a window, and the memory at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    /// The window's length.
    pub seconds: f64,
    /// CPUs used on average.
    pub cpus: f64,
    /// CPUs that the host has.
    pub host_cpus: u64,
    /// Enforcement periods in which the container had to wait, in percent.
    pub throttled_percent: f64,
    /// Memory at the window's end.
    pub memory: Memory,
    /// Bytes received a second.
    pub received_rate: f64,
    /// Bytes sent a second.
    pub sent_rate: f64,
    /// Packets in error during the window.
    pub network_errors: u64,
    /// Packets dropped during the window.
    pub network_drops: u64,
    /// Bytes read a second from block devices.
    pub read_rate: f64,
    /// Bytes written a second to block devices.
    pub write_rate: f64,
    /// Processes and threads.
    pub pids: u64,
}

impl Load {
    /// None where the counters began anew in between: the container was started again.
    pub fn between(first: &Sample, last: &Sample) -> Option<Self> {
        let seconds = last.at - first.at;
        if seconds <= 0.0 || last.cpu_seconds < first.cpu_seconds {
            return None;
        }
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        let periods = last.periods.saturating_sub(first.periods);
        let throttled = last.throttled_periods.saturating_sub(first.throttled_periods);
        Some(Self {
            seconds,
            cpus: (last.cpu_seconds - first.cpu_seconds) / seconds,
            host_cpus: last.host_cpus,
            throttled_percent: percent(throttled, periods),
            memory: last.memory,
            received_rate: rate(first.network.received_bytes, last.network.received_bytes),
            sent_rate: rate(first.network.sent_bytes, last.network.sent_bytes),
            network_errors: last.network.errors.saturating_sub(first.network.errors),
            network_drops: last.network.drops.saturating_sub(first.network.drops),
            read_rate: rate(first.read_bytes, last.read_bytes),
            write_rate: rate(first.written_bytes, last.written_bytes),
            pids: last.pids,
        })
    }
}

/// `part` of `whole` in percent; 0 of nothing.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}
