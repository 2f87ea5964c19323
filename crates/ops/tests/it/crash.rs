//! `ops` is killed in each phase; the next command puts everything right, and no client notices.

use std::time::Duration;

use devkit::wait_until;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Image, LIMIT, Stack, assert_none_failed};

/// The journal's deploy and its phase, as `ops` wrote them last.
fn journal(stack: &Stack) -> (String, String) {
    let journal = std::fs::read(stack.folder.path().join("deploy.json")).unwrap_or_default();
    let journal: Value = serde_json::from_slice(&journal).unwrap_or_default();
    let text = |name: &str| journal[name].as_str().unwrap_or_default().to_owned();
    (text("id"), text("phase"))
}

/// Kills a deploy in this phase, and has it put right. Says in which it really was.
async fn kill_in(stack: &Stack, wanted: &str, image: &str, strategy: &[&str]) -> String {
    let before = stack.serving().await;
    let (last, _) = journal(stack);
    let running = stack.start(&[&["deploy", image, "--keep-warm", "0s", "--bake", "1s"], strategy].concat());
    let there = |(id, phase): (String, String)| id != last && (phase == wanted || phase == "done");
    let reached = wait_until(wanted, LIMIT, async || there(journal(stack)));
    reached.await.unwrap();
    // Stopped first, so that phase and death are one.
    running.signal(Signal::STOP);
    let (_, found) = journal(stack);
    running.signal(Signal::KILL);
    running.ended().await;

    stack.ops(&["reconcile"]).await.expect(0);

    let after = stack.serving().await;
    let forward = matches!(found.as_str(), "promoted" | "baking" | "draining" | "done");
    assert_eq!(after != before, forward, "killed while {found}: {before:?}, then {after:?}");
    assert_eq!(stack.running().await.len(), after.len(), "killed while {found}: containers are left over");
    stack.ops(&["history", "--verify"]).await.expect(0);
    println!("killed while {found}: {}", if forward { "finished" } else { "undone" });
    found
}

async fn kill_in_each(phases: &[&str], strategy: &[&str]) {
    let stack = Stack::up(&[]).await;
    let images = [Image::Second.tag().await, Image::Third.tag().await];
    let load = stack.load(Duration::from_millis(5)).await;
    for wanted in phases {
        let mut tries = 0;
        // A phase may be over before it was seen.
        while kill_in(&stack, wanted, &images[tries % 2], strategy).await != *wanted {
            tries += 1;
            assert!(tries < 20, "{wanted} is never seen");
        }
    }
    assert_none_failed(&load.stop().await);
}

#[tokio::test]
async fn a_deploy_killed_while_it_starts_or_switches_is_put_right() {
    kill_in_each(&["started", "promoted"], &[]).await;
}

#[tokio::test]
#[ignore = "a quarter of an hour: cargo dev nightly"]
async fn a_deploy_killed_in_any_phase_is_put_right() {
    let phases =
        ["planned", "cleared", "created", "started", "ready", "smoked", "admitted", "promoted", "baking", "draining"];
    kill_in_each(&phases, &[]).await;
}

#[tokio::test]
#[ignore = "minutes: cargo dev nightly"]
async fn a_canary_killed_in_its_step_is_put_right() {
    kill_in_each(&["step"], &["--strategy", "canary", "--step-min", "5s"]).await;
}
