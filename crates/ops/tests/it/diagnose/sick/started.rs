//! Never started, or ended at once, for a reason that can be proved.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::diagnose::support::{Sick, debian, docker, json, until};

/// A folder with one program in it, mounted at `/x`.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(program: &[u8], mode: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, program).unwrap();
        for (path, mode) in [(path.as_path(), mode), (folder.path(), 0o755)] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        Self(folder)
    }

    fn option(&self) -> String {
        format!("--volume={}:/x", self.0.path().display())
    }

    fn cause(&self) -> (String, String) {
        Sick::new(&[&self.option()], &["/x/program"]).ended().cause()
    }
}

/// This machine's `true`, changed.
fn program(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = std::fs::read(Path::new("/bin/true")).unwrap();
    change(&mut bytes);
    bytes
}

#[test]
fn a_command_that_is_not_in_the_image_is_named() {
    let (id, evidence) = Sick::new(&[], &["no-such-program"]).cause();
    assert!(id == "missing-program" && evidence.contains("no-such-program"), "{id}: {evidence}");
}

#[test]
fn a_file_without_the_permission_is_not_executable() {
    let (id, evidence) = Mounted::new(b"#!/bin/sh\n", 0o644).cause();
    assert!(id == "not-executable" && evidence.contains("/x/program"), "{id}: {evidence}");
}

#[test]
fn a_program_for_another_machine_is_found_by_its_header() {
    // The machine is at byte 18: AArch64.
    let arm = program(|bytes| bytes[18] = 183);
    let (id, evidence) = Mounted::new(&arm, 0o755).cause();
    assert!(id == "wrong-architecture" && evidence.contains("aarch64"), "{id}: {evidence}");
}

#[test]
fn a_program_whose_loader_is_missing_is_found() {
    let strange = program(|bytes| {
        let loader = b"ld-linux-x86-64.so.2";
        let at = bytes.windows(loader.len()).position(|window| window == loader).unwrap();
        bytes[at + loader.len() - 1] = b'9';
    });
    let (id, evidence) = Mounted::new(&strange, 0o755).cause();
    assert!(id == "missing-loader" && evidence.contains("ld-linux-x86-64.so.9"), "{id}: {evidence}");
}

#[test]
fn a_script_whose_interpreter_is_missing_is_found() {
    let (id, evidence) = Mounted::new(b"#!/usr/bin/no-such-shell\n", 0o755).cause();
    assert!(id == "missing-loader" && evidence.contains("no-such-shell"), "{id}: {evidence}");
}

#[test]
fn a_port_that_is_taken_names_who_has_it() {
    let holder = Sick::new(&["--publish=127.0.0.1::80"], &["sleep", "600"]);
    let port = docker(&["port", &holder.name, "80"]);
    let port = port.trim().rsplit(':').next().unwrap();
    let sick = Sick::new(&[&format!("--publish=127.0.0.1:{port}:80")], &["sleep", "600"]);
    let (id, evidence) = sick.cause();
    assert!(id == "port-taken" && evidence.contains(&holder.name), "{id}: {evidence}");
}

#[test]
fn a_write_to_the_image_is_read_only() {
    let sick = Sick::new(&[], &["sh", "-c", "echo x > /opt/state"]).ended();
    assert_eq!(sick.cause().0, "read-only");
}

#[test]
fn a_file_that_is_neither_in_the_image_nor_mounted_is_named() {
    let (id, evidence) = Sick::new(&[], &["cat", "/etc/app.toml"]).ended().cause();
    assert!(id == "missing-file" && evidence.contains("/etc/app.toml"), "{id}: {evidence}");
}

#[test]
fn a_mount_of_another_owner_is_named() {
    let mounted = Mounted::new(b"", 0o644);
    chown(mounted.0.path(), Some(4321), Some(4321)).unwrap();
    let sick = Sick::new(&[&mounted.option()], &["sh", "-c", "echo x > /x/state"]).ended();
    let (id, evidence) = sick.cause();
    assert!(id == "mount-owner" && evidence.contains("/x belongs to user 4321"), "{id}: {evidence}");
}

#[test]
fn a_missing_variable_is_named() {
    let sick = Sick::new(&[], &["sh", "-c", "echo 'DATABASE_URL must be set' >&2; exit 2"]).ended();
    let (id, evidence) = sick.cause();
    assert!(id == "missing-environment" && evidence.contains("DATABASE_URL"), "{id}: {evidence}");
}

#[test]
fn an_unhealthy_container_comes_with_its_checks_output() {
    let sick = Sick::new(&["--health-cmd=echo no route; false", "--health-retries=1"], &["sleep", "600"]);
    until("it is unhealthy", || sick.state()["Health"]["Status"] == "unhealthy");
    let (id, evidence) = sick.cause();
    assert!(id == "unhealthy" && evidence.contains("no route"), "{id}: {evidence}");
}

#[test]
fn what_runs_has_no_cause() {
    let sick = Sick::new(&[], &["sleep", "600"]);
    let (code, document) = json(&["startup", &sick.name]);
    assert_eq!((code, document["causes"].as_array().unwrap().len()), (0, 0));
}

#[test]
fn an_image_is_tried_in_a_container_that_is_removed() {
    let (code, document) = json(&["startup", debian(), "--run", "--for", "5s"]);
    let made = document["facts"]["name"].as_str().unwrap();
    assert!(made.starts_with("ops-startup-"), "{made}");
    // Its shell finds no input, and ends.
    assert_eq!((code, &document["facts"]["state"]["status"]), (0, &"exited".into()));
    assert!(docker(&["inspect", made]).contains("No such object"), "{made} is left behind");
}
