//! The balancer is killed and reloaded, and a new replica is dead while the others serve.

use std::time::Duration;

use devkit::{versions, wait_until};
use rustix::process::Signal;

use crate::support::{Image, LIMIT, Stack, assert_none_failed, docker};

async fn weights(stack: &Stack) -> Vec<(String, u64, String)> {
    let status = stack.json(&["status"]).await;
    let slot = |slot: &serde_json::Value| {
        let text = |name: &str| slot[name].as_str().unwrap().to_owned();
        (text("slot"), slot["weight"].as_u64().unwrap(), text("state"))
    };
    status["slots"].as_array().unwrap().iter().map(slot).collect()
}

#[tokio::test]
async fn a_balancer_that_is_killed_or_reloaded_in_a_step_keeps_its_weights() {
    let stack = Stack::up(&[]).await;
    let image = Image::Second.tag().await;
    let deploy = stack.start(&["deploy", &image, "--strategy", "canary", "--step-min", "10m", "--step-max", "11m"]);
    let step = async || stack.json(&["status"]).await["deploy"]["phase"] == "step";
    wait_until("a step", LIMIT, step).await.unwrap();
    let shared = async || weights(&stack).await.iter().any(|(slot, weight, _)| slot == "green1" && *weight > 0);
    wait_until("the canary's share", LIMIT, shared).await.unwrap();
    let before = weights(&stack).await;

    // Reloads under load, as the balancer's image does it.
    let balancer = format!("{}-balancer-1", stack.name);
    let load = stack.load(Duration::from_millis(5)).await;
    for reload in 1..=5 {
        docker(&["kill", "--signal=USR2", &balancer]).await;
        let answered = load.answered() + 1000;
        wait_until("more requests", LIMIT, async || load.answered() > answered).await.unwrap();
        assert_eq!(weights(&stack).await, before, "after reload {reload}");
    }
    assert_none_failed(&load.stop().await);

    docker(&["kill", "--signal=KILL", &balancer]).await;
    docker(&["start", &balancer]).await;
    wait_until("the same weights", LIMIT, async || weights(&stack).await == before).await.unwrap();

    deploy.signal(Signal::TERM);
    deploy.ended().await.expect(11);
    assert_eq!(stack.running().await.len(), 2);
}

#[tokio::test]
async fn a_balancer_that_loses_its_state_after_the_promotion_is_told_again() {
    let stack = Stack::up(&[]).await;
    let image = Image::Second.tag().await;
    let deploy = stack.start(&["deploy", &image, "--bake", "15s"]);
    let baking = async || stack.json(&["status"]).await["deploy"]["phase"] == "baking";
    wait_until("the watch", LIMIT, baking).await.unwrap();

    let balancer = format!("{}-balancer-1", stack.name);
    std::fs::remove_file(stack.socket.with_file_name("servers.state")).unwrap();
    docker(&["kill", "--signal=KILL", &balancer]).await;
    docker(&["start", &balancer]).await;

    deploy.ended().await.expect(0);
    assert_eq!(stack.serving().await, ["green1:2", "green2:2", "green3:2"]);
    let log = std::fs::read_to_string(stack.folder.path().join("audit.jsonl")).unwrap();
    assert_eq!(log.matches("the balancer had forgotten").count(), 1, "{log}");
}

#[tokio::test]
async fn a_slot_that_is_opened_by_hand_where_nobody_listens_costs_no_request() {
    let stack = Stack::up(&[]).await;
    let load = stack.load(Duration::from_millis(5)).await;
    // In one slot there is a container that refuses connections, in the other none at all.
    let (network, address) = (format!("{}_front", stack.name), stack.slot(24));
    let silent = ["--network", &network, "--ip", &address, versions::image("DEBIAN").unwrap(), "sleep", "infinity"];
    let silent = docker(&[&["run", "--detach", "--stop-timeout", "0"], &silent[..]].concat()).await;
    for slot in ["green3", "green4"] {
        stack.tell_balancer(&format!("set server service/{slot} state ready")).await;
        let answered = load.answered() + 2000;
        wait_until("more requests", LIMIT, async || load.answered() > answered).await.unwrap();
    }
    let image = Image::Second.tag().await;
    let refused = stack.ops(&["deploy", &image]).await.expect(3);
    assert!(refused.stderr.contains("two colours"), "{}", refused.stderr);

    docker(&["rm", "--force", &silent]).await;
    stack.ops(&["deploy", &image, "--replicas", "2"]).await.expect(0);

    assert_none_failed(&load.stop().await);
}

#[tokio::test]
async fn a_new_replica_that_stops_answering_gets_no_request() {
    let stack = Stack::up(&[]).await;
    let load = stack.load(Duration::from_millis(5)).await;
    // Paused as soon as it runs, its port accepts connections and nobody answers.
    let image = Image::Second.tag().await;
    let deploy =
        stack.start(&["deploy", &image, "--ready-timeout", "10s", "--keep-warm", "0s", "--no-migration-check"]);
    let made = async || {
        let running = stack.running().await;
        running.iter().find(|name| name.starts_with("green1-")).cloned()
    };
    wait_until("the container runs", LIMIT, async || made().await.is_some()).await.unwrap();
    docker(&["pause", &made().await.unwrap()]).await;

    deploy.ended().await.expect(5);

    assert_none_failed(&load.stop().await);
    assert_eq!(stack.running().await.len(), 2);
}
