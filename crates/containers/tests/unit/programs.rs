//! What a program's first bytes tell, and causes judged from evidence.

use crate::container::facts::{Facts, State};
use crate::startup::causes::judge;
use crate::startup::collect::Evidence;
use crate::startup::exit_code::explain;
use crate::startup::program::Program;

#[test]
fn this_machines_programs_name_their_machine_and_loader() {
    let program = Program::read("/bin/true", true, &std::fs::read("/bin/true").unwrap());
    assert_eq!(program.machine.as_deref(), Some(std::env::consts::ARCH));
    assert!(program.interpreter.unwrap().contains("/ld-linux"));
}

#[test]
fn a_32_bit_header_is_read_too() {
    let mut bytes = vec![0; 128];
    bytes[..6].copy_from_slice(b"\x7fELF\x01\x01");
    bytes[18] = 40;
    // One program header at 52: the loader's name at 100, 10 bytes.
    (bytes[28], bytes[42], bytes[44], bytes[52], bytes[56], bytes[68]) = (52, 32, 1, 3, 100, 10);
    bytes[100..109].copy_from_slice(b"/lib/ld.so"[..9].as_ref());
    let program = Program::read("/x", true, &bytes);
    assert_eq!((program.machine.as_deref(), program.interpreter.as_deref()), (Some("arm"), Some("/lib/ld.s")));
    assert!(program.foreign_to("x86_64") && !program.foreign_to("aarch64"));
}

#[test]
fn a_cut_off_or_lying_header_is_read_as_far_as_it_goes() {
    let full = std::fs::read("/bin/true").unwrap();
    for length in 0..200 {
        Program::read("/x", true, &full[..length]);
    }
    let mut lying = full[..64].to_vec();
    lying[32..40].fill(0xff);
    assert_eq!(Program::read("/x", true, &lying).interpreter, None);
}

#[test]
fn a_script_from_windows_shows_why_its_interpreter_is_missing() {
    let program = Program::read("/x", true, b"#!/bin/sh\r\necho\r\n");
    assert_eq!(program.interpreter.as_deref(), Some("/bin/sh\\r"));
}

fn ended(exit_code: i64, logs: &[&str]) -> Evidence {
    Evidence {
        facts: Facts {
            state: State { status: "exited".to_owned(), exit_code, ..State::default() },
            ..Facts::default()
        },
        host: "x86_64".to_owned(),
        logs: logs.iter().map(|&line| line.to_owned()).collect(),
        ..Evidence::default()
    }
}

#[test]
fn log_lines_name_causes_that_exit_codes_hide() {
    for (line, cause) in [
        ("listen tcp 0.0.0.0:80: bind: address already in use", "port-taken"),
        ("Error: Os { code: 98, kind: AddrInUse, message: \"Address already in use\" }", "port-taken"),
        ("server: error while loading shared libraries: libssl.so.3: cannot open", "missing-library"),
        ("OSError: [Errno 30] Read-only file system: '/app/x'", "read-only"),
        ("open /data/db: permission denied", "permission-denied"),
        ("KeyError: environment variable DATABASE_URL is missing", "missing-environment"),
        ("dial tcp: lookup db: no such host", "dependency"),
        ("connect ECONNREFUSED 10.0.0.3: Connection refused", "dependency"),
        ("open config.yaml: no such file or directory", "missing-file"),
        ("something else", "exit-code"),
    ] {
        assert_eq!(judge(&ended(1, &["starting", line]))[0].id, cause, "{line}");
    }
}

#[test]
fn exit_codes_are_explained() {
    let explained = |code| explain(&State { exit_code: code, ..State::default() });
    assert!(explained(101).contains("panic"));
    assert!(explained(130).contains("signal 2"));
    assert!(explained(42).contains("own code"));
}
