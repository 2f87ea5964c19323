//! The engine and its containers while `ops` looks at them.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::relay::Relay;
use crate::diagnose::support::{Sick, debian, docker, json, ops};

#[test]
fn a_container_that_vanishes_meanwhile_is_reported_as_gone() {
    let stays = Sick::new(&[], &["sleep", "600"]);
    let goes = Sick::new(&[], &["sleep", "600"]);
    let relay = Relay::new();
    let arguments = ["diagnose", &stays.name, &goes.name, "--for", "5s", "--docker-host", &relay.address()];
    let arguments = arguments.map(str::to_owned);
    let looking = std::thread::spawn(move || json(&arguments.each_ref().map(String::as_str)));
    relay.wait(2);
    let name = goes.name.clone();
    drop(goes);
    let (_, document) = looking.join().unwrap();
    assert_eq!(document["gone"], serde_json::json!([name]));
    assert_eq!(document["containers"][0]["name"], stays.name.as_str());
}

#[test]
fn an_engine_that_stops_meanwhile_ends_every_command_with_9() {
    let sick = Sick::new(&[], &["sleep", "600"]);
    for command in ["diagnose", "memory", "monitor"] {
        let relay = Relay::new();
        let arguments = [command, &sick.name, "--for", "60s", "--docker-host", &relay.address()].map(str::to_owned);
        let looking = std::thread::spawn(move || ops(&arguments.each_ref().map(String::as_str)));
        relay.wait(1);
        relay.cut();
        let output = looking.join().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(9), "{command}: {said}");
    }
}

#[test]
fn a_container_that_does_not_exist_is_named_and_ends_with_3() {
    for command in ["diagnose", "startup", "memory", "monitor", "debug"] {
        let output = ops(&[command, "no-such-container"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{command}: {said}");
        assert!(said.contains("no-such-container"), "{command}: {said}");
    }
}

#[test]
fn two_hundred_containers_take_at_most_five_times_as_long_as_ten() {
    let label = format!("diagnose-{}", std::process::id());
    let sleepers = |count: usize, label: &str| -> Vec<Sick> {
        let option = format!("--label={label}");
        let make = || Sick::bare(&["--network=none", &option], &["sleep", "3600"]);
        std::thread::scope(|scope| {
            let part = |of: usize| (of..count).step_by(4).map(|_| make()).collect::<Vec<_>>();
            let parts: Vec<_> = (0..4).map(|of| scope.spawn(move || part(of))).collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        })
    };
    let measured = |label: &str, count: usize| {
        let began = Instant::now();
        let (_, document) = json(&["diagnose", "--label", label]);
        assert_eq!(document["containers"].as_array().unwrap().len(), count, "{}", document["gone"]);
        assert!(document["containers"].as_array().unwrap().iter().all(|one| !one["load"].is_null()));
        began.elapsed()
    };
    let few_label = format!("{label}-few");
    let _few = sleepers(10, &few_label);
    let many = sleepers(200, &label);
    // Before and after, for the machine may be busier now than then.
    let before = measured(&few_label, 10);
    let long = measured(&label, 200);
    let short = measured(&few_label, 10).max(before);
    println!("10 containers: {short:?}, 200 containers: {long:?}");
    // All at once: the client's own removal takes longer than the test.
    let names: Vec<_> = many.iter().map(|sick| sick.name.as_str()).collect();
    docker(&[&["rm", "--force"], &names[..]].concat());
    assert!(long < short * 5, "{short:?} for 10, {long:?} for 200");
}

/// Held while tools run, since one test looks for tools of anybody's that were left behind.
static TOOLS: Mutex<()> = Mutex::new(());

#[test]
fn debug_runs_the_command_and_not_what_the_tools_image_starts() {
    let _alone = TOOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let target = Sick::new(&[], &["sleep", "61234"]);
    let tag = format!("{}-tools", target.name);
    let dockerfile = format!("FROM {}\nENTRYPOINT [\"/bin/false\"]\nHEALTHCHECK CMD false\n", debian());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    docker(&["build", "--quiet", "--tag", &tag, folder.path().to_str().unwrap()]);
    let output = ops(&["debug", &target.name, "--image", &tag, "--", "echo", "a tool's words"]);
    // A shell that has nothing to read ends without an error.
    let shell = ops(&["debug", &target.name, "--image", &tag]);
    docker(&["rmi", &tag]);
    assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"a tool's words\n"[..], Some(0)), "{output:?}");
    assert_eq!(shell.status.code(), Some(0), "{shell:?}");
}

#[test]
fn debug_sees_the_targets_processes_and_files() {
    let _alone = TOOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let target = Sick::new(&[], &["sleep", "61234"]);
    let look = "tr '\\0' ' ' </proc/1/cmdline; ls -d /proc/1/root/tmp";
    let output = ops(&["debug", &target.name, "--image", debian(), "--", "sh", "-c", look]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("sleep 61234") && said.contains("/proc/1/root/tmp"), "{said}");
    let tools = docker(&["ps", "--all", "--filter", "name=ops-debug-", "--format", "{{.Names}}"]);
    assert_eq!(tools, "", "left behind");
}
