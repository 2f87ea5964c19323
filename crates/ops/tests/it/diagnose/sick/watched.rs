//! Over time: leaks, alerts, and reports that are written however it ends.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::diagnose::support::{Sick, docker, json};

fn report(path: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_leak_is_found_with_the_time_left_to_the_limit() {
    // 60 MB a minute: the ten minutes at 5 MB a minute are in `cargo dev nightly`.
    let leak = "my @all; while (1) { push @all, 'x' . 'y' x 1_000_000; select undef, undef, undef, 1 }";
    let sick = Sick::new(&["--memory=512m"], &["perl", "-e", leak]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();

    let (code, document) = json(&["memory", &sick.name, "--for", "45s", "--report", path]);

    assert_eq!((code, &document["verdict"]), (21, &"leak".into()), "{document}");
    let rate = document["trend"]["per_minute"].as_f64().unwrap();
    assert!((30e6..150e6).contains(&rate), "{rate}");
    assert!(document["time_left"].as_f64().unwrap() < 3600.0);
    assert!(report(file.path())["samples"].as_array().unwrap().len() > 30);
}

#[test]
fn an_alert_comes_when_it_happens_and_the_report_has_all_samples() {
    let sick = Sick::new(&["--cpus=0.3"], &["perl", "-e", "fork; 1 while 1"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let name = sick.name.clone();
    let restart = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(5));
        docker(&["restart", "--time", "0", &name]);
    });

    let (code, document) = json(&["monitor", &sick.name, "--for", "14s", "--every", "1s", "--report", path]);

    restart.join().unwrap();
    let alerts: Vec<_> =
        document["alerts"].as_array().unwrap().iter().map(|alert| alert["finding"]["id"].as_str()).collect();
    assert_eq!(code, 20, "{document}");
    for id in ["cpu-high", "exited", "restarted"] {
        assert!(alerts.contains(&Some(id)), "{id} is missing: {alerts:?}");
    }
    let report = report(file.path());
    assert!(report["samples"].as_array().unwrap().len() >= 5, "{report}");
    assert!(document["quantities"]["cpus"]["p95"].as_f64().unwrap() > 0.2);
}

/// Monitors for ten minutes unless `end` does something that ends it, once the first sample was seen.
fn monitored(end: impl FnOnce(u32, &Sick)) -> (Option<i32>, Value) {
    let sick = Sick::new(&[], &["sleep", "600"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ops"))
        .args(["monitor", &sick.name, "--for", "10m", "--every", "1s", "--report"])
        .arg(&path)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Its first line is its first sample.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    lines.next().unwrap().unwrap();
    end(child.id(), &sick);
    (child.wait().unwrap().code(), report(&path))
}

#[test]
fn ctrl_c_still_writes_the_report() {
    let (code, report) = monitored(|id, _| {
        Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap();
    });
    assert_eq!(code, Some(0));
    assert!(report["interrupted"] == true && !report["samples"].as_array().unwrap().is_empty(), "{report}");
}

#[test]
fn a_container_that_is_removed_ends_the_watch_with_a_report() {
    let (code, report) = monitored(|_, sick| {
        docker(&["rm", "--force", &sick.name]);
    });
    // Its end is an alert.
    assert_eq!(code, Some(20), "{report}");
    assert!(report["gone"] == true && !report["samples"].as_array().unwrap().is_empty(), "{report}");
}
