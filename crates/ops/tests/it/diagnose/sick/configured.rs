//! Set up badly.

use crate::diagnose::support::Sick;

fn diagnosed(options: &[&str]) -> (i32, Vec<String>) {
    Sick::new(options, &["sleep", "600"]).diagnosed(&["--for", "1s"])
}

fn only(id: &str) -> Vec<String> {
    vec![id.to_owned()]
}

#[test]
fn a_container_set_up_well_has_no_findings() {
    assert_eq!(diagnosed(&[]), (0, vec![]));
}

#[test]
fn a_container_without_limits_may_take_all_memory() {
    assert_eq!(diagnosed(&["--memory=0"]), (20, only("no-memory-limit")));
}

#[test]
fn a_container_that_runs_as_root_says_so() {
    assert_eq!(diagnosed(&["--user=0"]), (20, only("root")));
}

#[test]
fn the_engines_socket_inside_is_critical() {
    let mount = "--volume=/var/run/docker.sock:/var/run/docker.sock";
    assert_eq!(diagnosed(&[mount]), (21, only("engine-socket")));
}

#[test]
fn dangerous_capabilities_are_critical() {
    assert_eq!(diagnosed(&["--cap-add=SYS_ADMIN"]), (21, only("added-capabilities")));
}

#[test]
fn what_can_wait_is_low_and_ends_with_0() {
    let bare = Sick::bare(&["--user=1001", "--memory=64m", "--publish=0:80"], &["sleep", "600"]);
    let (code, findings) = bare.diagnosed(&["--for", "1s"]);
    let low =
        ["published-everywhere", "no-cpu-quota", "no-pids-limit", "no-health-check", "writable-root", "new-privileges"];
    let more = ["no-log-rotation"];
    assert_eq!((code, findings), (0, [&low[..], &more[..]].concat().iter().map(|&id| id.to_owned()).collect()));
}
