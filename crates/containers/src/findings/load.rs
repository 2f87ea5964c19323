//! Rules about what a container uses.

use super::Severity::{High, Medium};
use super::{Finding, Rule, Thresholds};
use crate::container::facts::Facts;
use crate::container::load::percent;
use crate::output::units::{bytes, rate};

pub(super) const RULES: &[Rule] = &[memory, cpu, throttled, block, network, lost_packets, pids];

/// Judged by what can't be reclaimed: page cache fills any limit and gives way at once.
pub(super) fn memory(facts: &Facts, thresholds: &Thresholds) -> Option<Finding> {
    let (memory, limit) = (facts.load.as_ref()?.memory, facts.configuration.memory_limit?);
    let share = percent(memory.unreclaimable, limit);
    let severity = match share {
        share if share > thresholds.memory => High,
        share if share > thresholds.memory_warning => Medium,
        _ => return None,
    };
    let (used, set) = (bytes(memory.unreclaimable), bytes(memory.working_set));
    let evidence = format!("{used} of {} ({share:.0} %) can't be reclaimed; working set {set}", bytes(limit));
    let advice = "Look at the trend with `ops memory`; without a leak, raise the limit before the kernel kills.";
    Some(Finding::new("memory-high", severity, evidence, advice))
}

pub(super) fn cpu(facts: &Facts, thresholds: &Thresholds) -> Option<Finding> {
    let load = facts.load.as_ref()?;
    let quota = facts.configuration.cpu_quota;
    let share = load.cpus / quota.unwrap_or(1.0) * 100.0;
    if share <= thresholds.cpu {
        return None;
    }
    let (used, host) = (load.cpus, load.host_cpus);
    let (evidence, advice) = match quota {
        Some(quota) => (
            format!(
                "{used:.2} of {quota} CPUs ({share:.0} %), throttled in {:.0} % of periods",
                load.throttled_percent
            ),
            "Raise the quota or add replicas; if the load doesn't explain it, profile it (`ops debug`, perf).",
        ),
        None => (
            format!("{used:.2} CPUs of the host's {host}, and no quota"),
            "Find out what it computes (`ops debug`, perf); set a quota, so that it can't starve its neighbours.",
        ),
    };
    Some(Finding::new("cpu-high", Medium, evidence, advice))
}

/// Where the average is high too, `cpu-high` says it already.
fn throttled(facts: &Facts, thresholds: &Thresholds) -> Option<Finding> {
    let load = facts.load.as_ref()?;
    if load.throttled_percent <= thresholds.throttled || cpu(facts, thresholds).is_some() {
        return None;
    }
    let (share, used) = (load.throttled_percent, load.cpus);
    let quota = facts.configuration.cpu_quota.unwrap_or_default();
    Some(Finding::new(
        "cpu-throttled",
        Medium,
        format!("had to wait in {share:.0} % of periods, though it uses only {used:.2} of {quota} CPUs on average"),
        "Bursts from many threads use up the quota: raise it, or start fewer worker threads.",
    ))
}

fn block(facts: &Facts, thresholds: &Thresholds) -> Option<Finding> {
    let load = facts.load.as_ref()?;
    if load.read_rate + load.write_rate <= thresholds.io * 1e6 {
        return None;
    }
    let evidence = format!("reads {}, writes {}", rate(load.read_rate), rate(load.write_rate));
    Some(Finding::new(
        "io-high",
        Medium,
        evidence,
        "Find the files (`ops debug`, strace); bound it with --device-write-bps.",
    ))
}

fn network(facts: &Facts, thresholds: &Thresholds) -> Option<Finding> {
    let load = facts.load.as_ref()?;
    if load.received_rate + load.sent_rate <= thresholds.io * 1e6 {
        return None;
    }
    let evidence = format!("receives {}, sends {}", rate(load.received_rate), rate(load.sent_rate));
    Some(Finding::new(
        "network-high",
        Medium,
        evidence,
        "Find the peer (`ops debug`, ss -tin); page and compress large answers.",
    ))
}

fn lost_packets(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let load = facts.load.as_ref()?;
    let (errors, drops) = (load.network_errors, load.network_drops);
    let evidence = format!("{errors} packets in error and {drops} dropped in {:.0} s", load.seconds);
    let advice = "Look at the interface's queue and MTU on the host (ip -s link).";
    (errors + drops > 0).then(|| Finding::new("network-errors", Medium, evidence, advice))
}

fn pids(facts: &Facts, thresholds: &Thresholds) -> Option<Finding> {
    let (pids, limit) = (facts.load.as_ref()?.pids, facts.configuration.pids_limit?);
    let evidence = format!("{pids} processes and threads of at most {limit}");
    let advice = "At the limit no thread starts. Does it collect zombies? Try --init; else raise --pids-limit.";
    (percent(pids, limit) > thresholds.pids).then(|| Finding::new("pids-high", High, evidence, advice))
}
