//! Deploys of services, under load and interrupted.

use std::time::Duration;

use devkit::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Ended, Image, LIMIT, Stack, assert_none_failed, docker};

/// Of each client between two requests.
const PAUSE: Duration = Duration::from_millis(5);

async fn ops(stack: &Stack, args: &[&str]) -> Ended {
    stack.ops(&stack.args(args)).await
}

/// What takes traffic, as slot and version.
fn all(color: &str, version: &str) -> Vec<String> {
    (1..=3).map(|slot| format!("{color}{slot}:{version}")).collect()
}

fn services(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(name, replicas)| ((*name).to_owned(), *replicas)).collect()
}

#[tokio::test]
async fn a_blue_green_deploy_and_its_rollback_lose_no_request_and_services_say_what_they_are() {
    let stack = Stack::up().await;
    let before = stack.serving().await;
    let load = stack.load(PAUSE).await;

    let ended = ops(&stack, &["deploy", &Image::Second.tag().await, "--smoke", "/api/test"]).await.expect(0);
    println!("{}", ended.stderr);
    assert_eq!(stack.serving().await, all("green", "2"));
    let spec = stack.spec(&format!("{}_green", stack.name)).await;
    let labels = &spec["Labels"];
    assert_eq!(
        (&labels["color"], &labels["version"], &labels["active"]),
        (&json!("green"), &json!("2"), &json!("true"))
    );
    assert_eq!(stack.spec(&format!("{}_service", stack.name)).await["Labels"]["active"], "false");
    let second = 1_000_000_000_u64;
    let of = |name: &str| ["Parallelism", "Delay", "FailureAction"].map(|field| spec[name][field].clone());
    assert_eq!(of("UpdateConfig"), [json!(1), json!(10 * second), json!("rollback")]);
    assert_eq!(of("RollbackConfig"), [json!(1), json!(10 * second), json!("pause")]);
    let health = &spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"];
    assert_eq!((&health["Timeout"], &health["Interval"]), (&json!(10 * second), &json!(5 * second)));
    assert_eq!(spec["EndpointSpec"], json!({"Mode": "dnsrr"}));
    assert_eq!(stack.services().await, services(&[("green", 3), ("service", 3)]), "the old ones are warm");

    ops(&stack, &["rollback"]).await.expect(0);
    assert_eq!(stack.serving().await, before);
    assert_none_failed(&load.stop().await);
}

#[tokio::test]
async fn a_canary_with_five_percent_errors_is_rolled_back_and_an_equal_one_is_promoted() {
    let stack = Stack::up().await;
    let (before, here) = (stack.serving().await, stack.services().await);
    let quick = ["--strategy", "canary", "--warm-up", "2s", "--step-min", "5s", "--bake", "3s", "--keep-warm", "0s"];
    // One or two errors a second: between two looks, hardly ever one.
    let load = stack.load(Duration::from_millis(50)).await;

    let faulty = Image::FivePercentErrors.tag().await;
    let ended = ops(&stack, &[&["deploy", &faulty], &quick[..]].concat()).await.expect(6);
    println!("{}", ended.stderr);
    let report = load.stop().await;
    println!("{report}");
    assert!((1..=10).contains(&report.failures()), "{report}");
    assert_eq!((stack.serving().await, stack.services().await), (before, here), "canary and baseline are gone");

    let load = stack.load(PAUSE).await;
    let equal = Image::Second.tag().await;
    let ended = ops(&stack, &[&["deploy", &equal, "--min-requests", "300"], &quick[..]].concat()).await.expect(0);
    println!("{}", ended.stderr);
    assert_none_failed(&load.stop().await);
    assert_eq!(stack.serving().await, all("green", "2"));
    assert_eq!(stack.services().await, services(&[("green", 3), ("service", 0)]), "the baseline is gone");
}

#[tokio::test]
async fn a_killed_deploy_is_put_right_and_tasks_that_are_replaced_are_found_without_ops() {
    let stack = Stack::up().await;
    let before = stack.serving().await;
    let image = Image::Second.tag().await;
    let load = stack.load(PAUSE).await;

    for (wanted, forward) in [("started", false), ("promoted", true)] {
        // The bake holds a deploy between promotion and end, so that it is seen there.
        let args = stack.args(&["deploy", &image, "--keep-warm", "0s", "--bake", "60s"]);
        let running = stack.start(&args);
        let journal = stack.folder.path().join("deploy.json");
        let phase = || {
            let journal: Value =
                serde_json::from_slice(&std::fs::read(&journal).unwrap_or_default()).unwrap_or_default();
            journal["phase"].as_str().unwrap_or_default().to_owned()
        };
        let there = async || phase() == wanted || (forward && phase() == "baking");
        wait_until(wanted, LIMIT, there).await.unwrap();
        running.signal(Signal::KILL);
        running.ended().await;
        println!("killed while {}", phase());

        println!("{}", ops(&stack, &["reconcile"]).await.expect(0).stderr);

        let expected = if forward { all("green", "2") } else { before.clone() };
        assert_eq!(stack.serving().await, expected);
    }
    assert_eq!(stack.services().await, services(&[("green", 3), ("service", 0)]));
    assert_none_failed(&load.stop().await);

    // The balancer's weights are kept beside its socket.
    for task in ["green.1", "balancer.1"] {
        let filter = format!("name={}_{task}", stack.name);
        let old = docker(&["ps", "--quiet", "--filter", &filter]).await;
        docker(&["kill", &old]).await;
        let replaced = async || {
            let new = docker(&["ps", "--quiet", "--filter", &filter]).await;
            new != old && !new.is_empty() && stack.serving().await == all("green", "2")
        };
        wait_until(task, LIMIT, replaced).await.unwrap();
    }
}
