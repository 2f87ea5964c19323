//! Without an engine, or a balancer.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::diagnose::support::{Sick, ops};

const COMMANDS: [&str; 5] = ["diagnose", "startup", "memory", "monitor", "debug"];

fn refused(address: &str) {
    for command in COMMANDS {
        let output = ops(&[command, "web", "--docker-host", address, "--timeout", "1s"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(9), "{command}: {said}");
        assert!(said.contains(address), "{command}: {said}");
    }
}

#[test]
fn a_missing_socket_ends_with_9() {
    refused("unix:///nonexistent/docker.sock");
}

#[test]
fn a_socket_that_nobody_listens_on_ends_with_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker.sock");
    drop(UnixListener::bind(&path).unwrap());
    refused(&format!("unix://{}", path.display()));
}

#[test]
fn an_engine_that_never_answers_ends_with_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker.sock");
    let _silent = UnixListener::bind(&path).unwrap();
    refused(&format!("unix://{}", path.display()));
}

#[test]
fn a_balancer_that_is_not_there_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("admin.sock");
    let deaf = folder.path().join("deaf.sock");
    drop(UnixListener::bind(&deaf).unwrap());
    let well = Sick::new(&[], &["sleep", "600"]);
    for balancer in [missing, deaf] {
        let began = Instant::now();
        let balancer = balancer.to_str().unwrap();
        let output = ops(&["diagnose", &well.name, "--for", "1s", "--timeout", "10m", "--balancer", balancer]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{balancer}: {:?}", began.elapsed());
    }
}

#[test]
fn a_look_at_a_balancer_that_is_not_there_ends_with_9_before_the_time_of_a_deploy_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, state) = (folder.path().join("admin.sock"), folder.path().to_str().unwrap());
    for command in [&["status"][..], &["deploy", "plinth:2", "--dry-run"]] {
        let began = Instant::now();
        let options = ["--timeout", "10m", "--state-dir", state, "--balancer", missing.to_str().unwrap()];
        let output = ops(&[command, &options[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(9), "{command:?}: {said}");
        assert!(said.contains("see --balancer"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(60), "{command:?}: {:?}", began.elapsed());
    }
}
