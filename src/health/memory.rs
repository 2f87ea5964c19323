//! Memory against its limit, as the kernel's own killer sees it: the working set, never raw usage,
//! since page cache is given back under pressure.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use telemetry::process;

/// Above this share of the limit the process takes itself out of the balancer…
const HIGH_PERCENT: f64 = 90.0;
/// …until it is below this one, so that it doesn't flap.
const LOW_PERCENT: f64 = 80.0;

/// One reading, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In use.
    pub used: Option<u64>,
    /// At most; `None` without a limit.
    pub limit: Option<u64>,
}

impl Memory {
    /// Reads now. With a configured limit, the process's resident memory counts against it.
    pub fn read(configured: Option<u64>) -> Self {
        if configured.is_some() {
            return Self { used: process::resident_bytes(), limit: configured };
        }
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let host = process::number("/proc/meminfo", "MemTotal:").map(|kib| kib * 1024);
        Self::of_cgroup(Path::new("/sys/fs/cgroup"), &groups, host)
    }

    /// Of the process's cgroup, by version 2 or else 1, or of one around it that is closer to its own limit: groups
    /// share the limit of those around them, and the kernel kills at whichever is reached first. Of a group around it
    /// counts only what can't be given back: a neighbour's caches mustn't make this process unready.
    pub fn of_cgroup(root: &Path, groups: &str, host: Option<u64>) -> Self {
        let v2 = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let v1 = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|controller| controller == "memory").then_some(path)
        });
        let v2 = v2.and_then(|path| read(root, path, host, ["memory.current", "memory.max", ""]));
        let v1 = || {
            let files = ["memory.usage_in_bytes", "memory.limit_in_bytes", "total_"];
            read(&root.join("memory"), v1?, host, files)
        };
        v2.or_else(v1).unwrap_or_default()
    }

    /// Share of the limit.
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^53")]
    pub fn percent(&self) -> Option<f64> {
        let (used, limit) = (self.used?, self.limit.filter(|limit| *limit > 0)?);
        Some(used as f64 * 100.0 / limit as f64)
    }

    /// Whether there is too little left, given whether there was before.
    pub fn is_high(&self, was_high: bool) -> bool {
        self.percent().is_some_and(|percent| percent > if was_high { LOW_PERCENT } else { HIGH_PERCENT })
    }
}

/// The group that is closest to its limit; without any limit, the innermost. A container without a cgroup namespace
/// sees the host's path but only its own group, at the root.
fn read(root: &Path, path: &str, host: Option<u64>, files: [&str; 3]) -> Option<Memory> {
    let mut groups = Vec::new();
    for group in Path::new(path.trim_start_matches('/')).ancestors() {
        // The first is its own.
        let cached: &[&str] =
            if groups.is_empty() { &["inactive_file"] } else { &["inactive_file", "active_file", "slab_reclaimable"] };
        groups.extend(one(&root.join(group), host, files, cached));
    }
    // The last of equals is taken.
    groups.into_iter().rev().max_by(|a, b| a.percent().partial_cmp(&b.percent()).unwrap_or(Ordering::Equal))
}

fn one(group: &Path, host: Option<u64>, [usage, limit, all]: [&str; 3], cached: &[&str]) -> Option<Memory> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let used = number(usage)?;
    let stat = fs::read_to_string(group.join("memory.stat")).ok()?;
    let counter = |line: &str| {
        let (name, value) = line.strip_prefix(all)?.split_once(' ')?;
        cached.contains(&name).then(|| value.parse::<u64>().ok())?
    };
    let cache: u64 = stat.lines().filter_map(counter).sum();
    // Version 1 has no word for "none": an absurd number stands for it.
    let limit = number(limit).filter(|limit| host.is_none_or(|host| *limit < host));
    Some(Memory { used: Some(used.saturating_sub(cache)), limit })
}
