//! Signals to processes and to their children.

use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Sends a signal to one process; one that is gone is no failure.
pub(crate) fn signal(id: u32, signal: Signal) {
    if let Some(pid) = pid(id) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends a signal to every process of a group.
pub(crate) fn signal_group(id: u32, signal: Signal) {
    if let Some(pid) = pid(id) {
        let _ = kill_process_group(pid, signal);
    }
}

fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

/// Stops a process, then all its children: a stopped parent starts no new ones. Postgres gives each of its children
/// a session of its own, so that no signal to a group reaches them all.
pub(crate) fn freeze(id: u32) {
    signal(id, Signal::STOP);
    for child in children(id) {
        signal(child, Signal::STOP);
    }
}

/// The opposite of [`freeze`].
pub(crate) fn thaw(id: u32) {
    for child in children(id) {
        signal(child, Signal::CONT);
    }
    signal(id, Signal::CONT);
}

/// Waits for the end of a process, at most that long.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(2)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}

/// The children of a process, and theirs.
pub(crate) fn children(id: u32) -> Vec<u32> {
    let all = processes();
    let mut found = vec![id];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// Every process of the machine with its parent's id.
fn processes() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return processes_by_ps() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let with_parent = ids.filter_map(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // pid (name, which may hold anything) state parent …
        let (_, rest) = stat.rsplit_once(')')?;
        Some((id, rest.split_whitespace().nth(1)?.parse().ok()?))
    });
    with_parent.collect()
}

/// The same where there is no /proc (macOS).
fn processes_by_ps() -> Vec<(u32, u32)> {
    let Ok(output) = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let pairs = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace();
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    });
    pairs.collect()
}

/// Ends every process that works in `folder`: servers of a run that lost its guardian too (Linux). QUIT lets Postgres
/// free its shared memory; KILL is for what doesn't obey.
pub(crate) fn end_those_in(folder: &Path) {
    let there =
        |id: u32| std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|current| current.starts_with(folder));
    let left = || processes().into_iter().map(|(id, _)| id).filter(|id| there(*id)).collect::<Vec<_>>();
    for id in left() {
        signal(id, Signal::QUIT);
        signal(id, Signal::CONT);
    }
    let start = Instant::now();
    while !left().is_empty() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    for id in left() {
        signal(id, Signal::KILL);
    }
}
