//! Memory against its limit, as the kernel's own killer sees it: the working set, never raw usage,
//! since page cache is given back under pressure.

use std::fs;
use std::path::{Path, PathBuf};

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

    /// The cgroup's working set and limit, by version 2 or else 1.
    pub fn of_cgroup(root: &Path, groups: &str, host: Option<u64>) -> Self {
        let v2 = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let v1 = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|controller| controller == "memory").then_some(path)
        });
        let v2 = v2.and_then(|path| read(&places(root, path), "memory.current", "inactive_file", "memory.max"));
        let v1 = || {
            let root = root.join("memory");
            read(&places(&root, v1?), "memory.usage_in_bytes", "total_inactive_file", "memory.limit_in_bytes")
        };
        let mut memory = v2.or_else(v1).unwrap_or_default();
        // Version 1 has no word for "none": an absurd number stands for it.
        memory.limit = memory.limit.filter(|limit| host.is_none_or(|host| *limit < host));
        memory
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

/// A container without a cgroup namespace sees the host's path but only its own group, at the root.
fn places(root: &Path, path: &str) -> [PathBuf; 2] {
    [root.join(path.trim_start_matches('/')), root.to_owned()]
}

fn read(places: &[PathBuf], usage: &str, cache: &str, limit: &str) -> Option<Memory> {
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    places.iter().find_map(|place| {
        let used = number(place.join(usage))?;
        let stat = fs::read_to_string(place.join("memory.stat")).ok()?;
        let cache: u64 = stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse().ok())?;
        Some(Memory { used: Some(used.saturating_sub(cache)), limit: number(place.join(limit)) })
    })
}
