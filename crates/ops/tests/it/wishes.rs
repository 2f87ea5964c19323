//! What operators wish of a deploy under way.

use devkit::wait_until;

use crate::support::{Image, LIMIT, Stack, assert_none_failed};

const CANARY: [&str; 8] = ["--strategy", "canary", "--warm-up", "1s", "--step-min", "3s", "--keep-warm", "0s"];

/// Waits until the canary says so often that it is paused; gives its phase and share.
async fn until_paused(stack: &Stack, times: usize) -> (String, u64) {
    let log = stack.folder.path().join("audit.jsonl");
    let paused = async || std::fs::read_to_string(&log).is_ok_and(|log| log.matches("\"paused;").count() == times);
    wait_until("a pause", LIMIT, paused).await.unwrap();
    phase(stack).await
}

async fn phase(stack: &Stack) -> (String, u64) {
    let deploy = &stack.json(&["status"]).await["deploy"];
    (deploy["phase"].as_str().unwrap_or_default().to_owned(), deploy["share"].as_u64().unwrap_or_default())
}

#[tokio::test]
async fn a_paused_canary_keeps_its_share_until_it_is_resumed() {
    let stack = Stack::up(&[]).await;
    stack.ops(&["pause"]).await.expect(3);
    let load = stack.load(std::time::Duration::ZERO).await;
    let image = Image::Second.tag().await;
    let steps = ["--steps", "20,100", "--min-requests", "300", "--bake", "0s"];
    let deploy = stack.start(&[&["deploy", &image], &CANARY[..], &steps].concat());
    // Long before the step, which may be over as soon as it is seen.
    wait_until("a deploy", LIMIT, async || !phase(&stack).await.0.is_empty()).await.unwrap();

    stack.ops(&["pause"]).await.expect(0);

    let step = ("step".to_owned(), 20);
    assert_eq!(until_paused(&stack, 1).await, step);
    let answered = load.answered() + 3000;
    wait_until("more requests", LIMIT, async || load.answered() > answered).await.unwrap();
    assert_eq!(phase(&stack).await, step);
    stack.ops(&["resume"]).await.expect(0);
    deploy.ended().await.expect(0);
    assert_none_failed(&load.stop().await);
    assert_eq!(stack.serving().await, ["green1:2", "green2:2", "green3:2"]);
    stack.ops(&["abort"]).await.expect(3);
}

#[tokio::test]
async fn a_canary_without_traffic_is_held_and_an_abort_is_final() {
    let stack = Stack::up(&[]).await;
    let before = stack.serving().await;
    let image = Image::Second.tag().await;
    let hold = ["--steps", "20,50,100", "--step-max", "4s", "--on-inconclusive", "hold"];
    let deploy = stack.start(&[&["deploy", &image], &CANARY[..], &hold].concat());

    assert_eq!(until_paused(&stack, 1).await, ("step".to_owned(), 20));
    stack.ops(&["resume"]).await.expect(0);
    assert_eq!(until_paused(&stack, 2).await, ("step".to_owned(), 50));
    stack.ops(&["abort"]).await.expect(0);
    // Undone already, or about to be.
    stack.ops(&["resume"]).await.expect(3);

    deploy.ended().await.expect(11);
    assert_eq!(stack.serving().await, before);
    assert_eq!(stack.running().await.len(), 2);
}
