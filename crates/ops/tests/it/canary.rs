//! What a canary passes, and what it doesn't.

use std::time::Duration;

use crate::support::{Image, Stack, assert_none_failed};

/// Steps that a test can wait for.
const QUICK: [&str; 10] =
    ["--strategy", "canary", "--warm-up", "2s", "--step-min", "5s", "--bake", "3s", "--keep-warm", "0s"];

async fn canary(stack: &Stack, image: &str, more: &[&str]) -> crate::support::Ended {
    stack.ops(&[&["deploy", image], &QUICK[..], more].concat()).await
}

#[tokio::test]
async fn an_equal_canary_is_promoted_and_loses_no_request() {
    let stack = Stack::up(&[]).await;
    let load = stack.load(Duration::ZERO).await;
    let ended = canary(&stack, &Image::Second.tag().await, &["--min-requests", "300"]).await.expect(0);
    println!("{}", ended.stderr);
    assert_none_failed(&load.stop().await);
    assert_eq!(stack.serving().await, ["green1:2", "green2:2", "green3:2"]);
    assert_eq!(stack.running().await.len(), 3, "neither baseline nor old replicas run on");
}

#[tokio::test]
async fn a_canary_with_five_percent_errors_is_rolled_back_after_a_handful() {
    let stack = Stack::up(&[]).await;
    // One or two errors a second: between two looks, hardly ever one.
    let load = stack.load(Duration::from_millis(50)).await;
    let before = stack.serving().await;
    let ended = canary(&stack, &Image::FivePercentErrors.tag().await, &[]).await.expect(6);
    println!("{}", ended.stderr);
    let report = load.stop().await;
    println!("{report}");
    assert!((1..=10).contains(&report.failures()), "{report}");
    assert_eq!(stack.serving().await, before);
    assert_eq!(stack.running().await.len(), 2, "canary and baseline are gone");
}

#[tokio::test]
async fn a_slower_canary_is_rejected_and_a_hardly_slower_one_is_not() {
    let stack = Stack::up(&[("DATA_COMPUTE_TIME", "60ms")]).await;
    let load = stack.computing_load().await;
    let image = Image::Second.tag().await;
    let slower =
        canary(&stack, &image, &["--steps", "25,100", "--min-requests", "300", "--env", "DATA_COMPUTE_TIME=90ms"]);
    println!("{}", slower.await.expect(6).stderr);
    let hardly =
        canary(&stack, &image, &["--steps", "25,100", "--min-requests", "300", "--env", "DATA_COMPUTE_TIME=63ms"]);
    println!("{}", hardly.await.expect(0).stderr);
    assert_none_failed(&load.stop().await);
}

#[tokio::test]
async fn without_traffic_nothing_is_promoted_but_probes_can_stand_in_for_it() {
    let stack = Stack::up(&[]).await;
    let before = stack.serving().await;
    let image = Image::Second.tag().await;
    let ended = canary(&stack, &image, &["--step-max", "8s"]).await.expect(7);
    assert!(ended.stderr.contains("0 requests to the canary"), "{}", ended.stderr);
    assert_eq!(stack.serving().await, before);
    let ended = canary(&stack, &image, &["--probe", "--min-requests", "200"]).await.expect(0);
    println!("{}", ended.stderr);
    assert_eq!(stack.serving().await, ["green1:2", "green2:2", "green3:2"]);
}
