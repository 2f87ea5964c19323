//! Switches under load lose nothing, in either direction.

use std::time::{Duration, Instant};

use devkit::wait_until;

use crate::support::{Image, LIMIT, Stack, assert_none_failed, docker};

/// Deploys so many times there and back under at least so many requests.
async fn switch(rounds: u32, requests: u64, settings: &[(&str, &str)]) {
    let stack = Stack::up(settings).await;
    let images = [Image::Second.tag().await, Image::Third.tag().await];
    let load = stack.load(Duration::ZERO).await;
    for round in 0..rounds {
        let image = &images[round as usize % 2];
        let start = Instant::now();
        stack.ops(&["deploy", image, "--keep-warm", "0s", "--smoke", "/api/test"]).await.expect(0);
        println!("deploy {round} took {:.1?}", start.elapsed());
    }
    wait_until("enough requests", LIMIT * 10, async || load.answered() >= requests).await.unwrap();
    let report = load.stop().await;
    println!("{rounds} deploys");
    assert_none_failed(&report);
    let color = if rounds % 2 == 1 { "green" } else { "blue" };
    let version = if rounds % 2 == 1 { 2 } else { 3 };
    let expected: Vec<_> = (1..=3).map(|slot| format!("{color}{slot}:{version}")).collect();
    assert_eq!(stack.serving().await, expected);
    assert_eq!(stack.running().await.len(), 3);
}

#[tokio::test]
async fn two_blue_green_deploys_under_load_lose_no_request() {
    switch(2, 2000, &[]).await;
}

#[tokio::test]
#[ignore = "half an hour: cargo dev nightly"]
async fn twenty_blue_green_deploys_lose_none_of_two_hundred_thousand_requests() {
    switch(20, 200_000, &[]).await;
}

#[tokio::test]
#[ignore = "minutes: cargo dev nightly"]
async fn deploys_lose_no_request_that_takes_two_seconds() {
    switch(2, 2000, &[("DATA_COMPUTE_TIME", "2s")]).await;
}

/// The ids of all containers in the slots, each with the time of its last start.
async fn started(stack: &Stack) -> Vec<String> {
    let names = stack.running().await;
    let format = ["inspect", "--format", "{{.Id}} {{.State.StartedAt}}"];
    let inspect: Vec<_> = format.into_iter().chain(names.iter().map(String::as_str)).collect();
    let mut lines: Vec<_> = docker(&inspect).await.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_rollback_to_warm_replicas_takes_no_time_and_loses_no_request() {
    let stack = Stack::up(&[]).await;
    let load = stack.load(Duration::from_millis(5)).await;
    stack.ops(&["deploy", &Image::Second.tag().await]).await.expect(0);
    assert_eq!(stack.serving().await, ["green1:2", "green2:2", "green3:2"]);
    let before = started(&stack).await;
    assert_eq!(before.len(), 5);
    let mut switched_after = Vec::new();
    let quick = |times: &[Duration]| times.iter().any(|took| *took < Duration::from_secs(1));
    for round in 0..20 {
        // Docker may be busy with other tests all through a few of them.
        if round >= 6 && quick(&switched_after) {
            break;
        }
        // Docker is busy with other tests; what counts is ops' own time, from its start to the end of the switch.
        let start = Instant::now();
        let ended = stack.ops(&["rollback"]).await.expect(0);
        let switched = ended.stderr.lines().find(|line| line.contains("draining")).unwrap_or_default().to_owned();
        let seconds: f64 = switched.trim_start().split('s').next().unwrap().parse().unwrap();
        println!("rollback {round}: switched after {seconds} s, ended after {:.2?}", start.elapsed());
        switched_after.push(Duration::from_secs_f64(seconds));
        let color = if round % 2 == 0 { "blue" } else { "green" };
        assert!(stack.serving().await.iter().all(|slot| slot.starts_with(color)));
    }
    assert_none_failed(&load.stop().await);
    // Why it takes no time: nothing had to be started. The figure depends on what else this machine does.
    assert_eq!(started(&stack).await, before);
    assert!(quick(&switched_after), "{switched_after:?}");
}
