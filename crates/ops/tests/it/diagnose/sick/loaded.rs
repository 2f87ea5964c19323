//! Too much of something.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::diagnose::support::{Sick, ids, json, until};

const SLEEP: &str = "sleep 600";

/// Burns CPU in four processes.
const BURN: &[&str] = &["perl", "-e", "fork; fork; 1 while 1"];

fn first(sick: &Sick, arguments: &[&str]) -> (i32, String) {
    let (code, findings) = sick.diagnosed(arguments);
    (code, findings.into_iter().next().unwrap_or_default())
}

// Quotas and thresholds are small here, so that a machine that is busy with other things still gives that much CPU; the
// usual thresholds are tested on recorded facts.

#[test]
fn a_burner_within_a_quota_uses_its_cpus_up() {
    let sick = Sick::new(&["--cpus=0.04"], BURN);
    assert_eq!(first(&sick, &["--for", "4s"]), (20, "cpu-high".to_owned()));
}

#[test]
fn a_burner_without_a_quota_is_found_too() {
    let sick = Sick::new(&["--cpus=0"], BURN);
    assert_eq!(first(&sick, &["--for", "4s", "--cpu", "5"]), (20, "cpu-high".to_owned()));
}

#[test]
fn bursts_are_throttled_though_the_average_is_low() {
    let bursts =
        "fork; fork; $| = 1; print qq(up\\n); while (1) { select undef, undef, undef, 2; for (1 .. 100_000) {} }";
    let sick = Sick::new(&["--cpus=0.02"], &["perl", "-e", bursts]).wrote("up\nup\nup\nup");
    assert_eq!(first(&sick, &["--for", "10s"]), (20, "cpu-throttled".to_owned()));
}

#[test]
fn memory_filled_to_92_percent_is_critical() {
    let fill = "vec(my $x, 122_000_000, 8) = 1; $| = 1; print qq(full\n); sleep 600";
    let sick = Sick::new(&[], &["perl", "-e", fill]).wrote("full");
    assert_eq!(first(&sick, &[]), (21, "memory-high".to_owned()));
}

#[test]
fn page_cache_up_to_the_limit_is_no_finding() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let mount = format!("--volume={}:/data", folder.path().display());
    // Written and read twice by the container, so that the cache is its own, and both parts of it are filled.
    let fill = format!(
        "dd if=/dev/zero of=/data/x bs=1M count=300 conv=fsync; cat /data/x /data/x >/dev/null; echo read; {SLEEP}"
    );
    let sick = Sick::new(&[&mount], &["sh", "-c", &fill]).wrote("read");

    let (code, document) = json(&["diagnose", &sick.name]);

    let one = &document["containers"][0];
    let usage = one["load"]["memory"]["usage"].as_f64().unwrap();
    assert!(usage > 0.9 * 128e6, "the cache didn't fill: {usage}");
    assert_eq!((code, ids(&one["findings"])), (0, vec![]));
}

#[test]
fn a_container_killed_for_memory_says_so() {
    let sick = Sick::killed_for_memory();
    assert_eq!(first(&sick, &[]), (21, "oom-killed".to_owned()));
}

#[test]
fn a_restart_loop_is_critical() {
    let sick = Sick::new(&["--restart=always"], &["sh", "-c", "exit 3"]);
    until("it was restarted", || {
        crate::diagnose::support::docker(&["inspect", "-f", "{{.RestartCount}}", &sick.name]).trim() > "1"
    });
    assert_eq!(first(&sick, &[]), (21, "restart-loop".to_owned()));
}

#[test]
fn a_failing_health_check_is_critical() {
    let sick = Sick::new(&["--health-cmd=echo no route; false", "--health-retries=2"], &["sleep", "600"]);
    until("it is unhealthy", || sick.state()["Health"]["Status"] == "unhealthy");
    assert_eq!(first(&sick, &[]), (21, "unhealthy".to_owned()));
}

#[test]
fn a_disk_writer_is_found_by_its_rate() {
    // cgroup v1 counts only where a device has a bound. It also keeps the test from taking the whole disk.
    let find =
        "lsblk -nspo NAME,TYPE $(df --output=source /var/lib/docker | tail -1) | awk '$2 == \"disk\" { print $1 }'";
    let disk = Command::new("sh").args(["-c", find]).output().unwrap().stdout;
    let bound = format!("--device-write-bps={}:40mb", String::from_utf8(disk).unwrap().trim());
    let write = "while :; do dd if=/dev/zero of=/data/x bs=1M count=64 oflag=direct; done";
    let sick = Sick::new(&["--user=0", "--volume=/data", &bound], &["sh", "-c", write]).wrote("copied");
    assert_eq!(first(&sick, &["--io", "10", "--for", "5s"]), (20, "io-high".to_owned()));
}

#[test]
fn a_network_talker_is_found_by_its_rate() {
    let talk = "use IO::Socket::INET; my $s = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '192.0.2.1:9') or die;
        while (1) { $s->send('x' x 60000) for 1 .. 20; select undef, undef, undef, 0.02 }";
    let sick = Sick::new(&[], &["perl", "-e", talk]);
    assert_eq!(first(&sick, &["--io", "10", "--cpu", "101"]), (20, "network-high".to_owned()));
}
