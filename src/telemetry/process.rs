//! What Linux says about this process.

use std::fs;
use std::time::Duration;

/// The kernel counts in these units whatever the processor does (`USER_HZ`, fixed for user space on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

pub struct Process {
    pub cpu: Duration,
    pub resident_bytes: i64,
    pub open_fds: i64,
    pub max_fds: i64,
    pub threads: i64,
    /// Start, since the epoch.
    pub start_time: Duration,
}

/// Reads `/proc`; `None` where there is none.
pub fn read() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let max_fds = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    Some(Process {
        cpu: Duration::try_from_secs_f64((field(14)? + field(15)?) / TICKS_PER_SECOND).ok()?,
        resident_bytes: i64::try_from(resident_bytes()?).ok()?,
        open_fds: super::metrics::count(fs::read_dir("/proc/self/fd").ok()?.count()),
        max_fds: max_fds.parse().unwrap_or(i64::MAX),
        threads: super::metrics::count(fs::read_dir("/proc/self/task").ok()?.count()),
        start_time: Duration::try_from_secs_f64(boot + field(22)? / TICKS_PER_SECOND).ok()?,
    })
}

pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?;
    kib.parse::<u64>().ok().map(|kib| kib * 1024)
}
