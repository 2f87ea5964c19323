//! Ended, with each of the codes that mean something.

use crate::diagnose::support::{Sick, docker};

/// The cause must be the exit code, and its evidence say this.
fn explained(command: &str, words: &str) {
    let sick = Sick::new(&["--init"], &["bash", "-c", command]).ended();
    let (id, evidence) = sick.cause();
    assert!(id == "exit-code" && evidence.contains(words), "{id}: {evidence}");
}

#[test]
fn exit_codes_1_and_2_come_with_the_last_log_line() {
    explained(
        "echo no database url given; exit 1",
        "exit code 1: the program reported an error; last log line: no database",
    );
    explained(
        "echo unknown flag; exit 2",
        "exit code 2: the program says that its arguments or configuration are wrong",
    );
}

#[test]
fn exit_code_101_is_a_rust_panic() {
    explained("exit 101", "a Rust program panicked");
}

#[test]
fn exit_code_125_is_the_engines() {
    explained("exit 125", "exit code 125");
}

#[test]
fn exit_code_126_of_a_shell_names_what_was_denied() {
    let (id, evidence) = Sick::new(&[], &["bash", "-c", "/etc/hostname; exit"]).ended().cause();
    assert!(id == "permission-denied" && evidence.contains("/etc/hostname"), "{id}: {evidence}");
}

#[test]
fn exit_code_127_of_a_shell_is_a_command_not_found() {
    explained(
        "no-such-tool; exit",
        "127: the command, or its loader, was not found; last log line: bash: line 1: no-such-tool",
    );
}

#[test]
fn exit_code_134_is_an_abort() {
    explained("ulimit -c 0; kill -ABRT $$", "the program aborted");
}

#[test]
fn exit_code_139_is_a_crash() {
    explained("ulimit -c 0; kill -SEGV $$", "invalid memory access");
}

#[test]
fn exit_code_137_without_the_engine_points_to_the_host() {
    let sick = Sick::new(&["--init"], &["perl", "-e", "kill 9, $$"]).ended();
    let (id, evidence) = sick.cause();
    assert!(id == "exit-code" && evidence.contains("the engine not"), "{id}: {evidence}");
}

#[test]
fn exit_code_137_after_a_stop_that_took_too_long_says_so() {
    let sick = Sick::new(&[], &["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"]).wrote("up");
    docker(&["stop", "--time", "1", &sick.name]);
    let (id, evidence) = sick.cause();
    assert!(id == "exit-code" && evidence.contains("didn't end in the time allowed"), "{id}: {evidence}");
}

#[test]
fn exit_code_137_with_the_kernels_flag_is_memory() {
    let sick = Sick::killed_for_memory();
    assert_eq!(sick.cause().0, "oom-killed");
}

#[test]
fn exit_code_143_is_how_a_stopped_container_ends() {
    let sick = Sick::new(&["--init"], &["sleep", "600"]);
    docker(&["stop", &sick.name]);
    let (id, evidence) = sick.cause();
    assert!(id == "exit-code" && evidence.contains("ended on SIGTERM"), "{id}: {evidence}");
    for command in ["startup", "diagnose"] {
        assert_eq!(crate::diagnose::support::ops(&[command, &sick.name]).status.code(), Some(0), "{command}");
    }
}
