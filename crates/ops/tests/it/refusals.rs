//! What is refused, and why.

use std::time::Duration;

use devkit::wait_until;
use rustix::process::Signal;

use crate::support::{Image, LIMIT, Stack, assert_none_failed};

/// A secret that must never be seen anywhere.
const CANARY: &str = "kanarienvogel";

#[tokio::test]
async fn a_version_that_can_not_serve_gets_no_traffic_and_its_cause_is_named() {
    let stack = Stack::up(&[]).await;
    let load = stack.load(Duration::from_millis(20)).await;
    let before = stack.serving().await;
    let database = format!("DATABASE_URL=postgres://plinth:{CANARY}@192.0.2.1/plinth");
    let never: &[&str] = &["--env", "DATABASE_URL_FILE=", "--env", &database, "--ready-timeout", "8s"];
    let cases: [(Image, &[&str], &str); 4] = [
        (Image::Second, never, "/health/ready"),
        (Image::Crashes, &[], "exit code 3"),
        (Image::RunsOutOfMemory, &[], "OOM"),
        (Image::OtherArchitecture, &[], "wrong architecture"),
    ];
    for (image, more, cause) in cases {
        let image_tag = image.tag().await;
        let deploy =
            async || stack.ops(&[&["deploy", &image_tag, "--no-migration-check"], more].concat()).await.expect(5);
        let ended = image.refused(cause, deploy).await;
        println!("{image:?}: {}", ended.stderr.lines().last().unwrap_or_default());
        assert!(ended.stderr.contains(cause), "{image:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains(CANARY), "{}", ended.stderr);
        assert_eq!(stack.serving().await, before);
        assert_eq!(stack.running().await.len(), 2, "{image:?} leaves containers");
    }
    for file in std::fs::read_dir(stack.folder.path()).unwrap() {
        let path = file.unwrap().path();
        assert!(!std::fs::read_to_string(&path).unwrap().contains(CANARY), "{}", path.display());
    }
    let report = load.stop().await;
    assert_none_failed(&report);
}

#[tokio::test]
async fn a_second_deploy_is_refused_at_once_and_the_lock_goes_with_its_holder() {
    let stack = Stack::up(&[]).await;
    let image = Image::Second.tag().await;
    let first = stack.start(&["deploy", &image, "--keep-warm", "0s"]);
    let journal = stack.folder.path().join("deploy.json");
    wait_until("the first is under way", LIMIT, async || journal.exists()).await.unwrap();

    let second = stack.ops(&["deploy", &image]).await.expect(4);
    assert!(second.stderr.contains("ops deploy, process"), "{}", second.stderr);

    first.signal(Signal::KILL);
    first.ended().await;
    stack.ops(&["reconcile"]).await.expect(0);
}

#[tokio::test]
async fn a_deploy_that_is_aborted_or_interrupted_leaves_the_old_version() {
    let stack = Stack::up(&[]).await;
    let before = stack.serving().await;
    let image = Image::Second.tag().await;
    let canary = ["deploy", &image, "--strategy", "canary"];
    let under_way = async || {
        let step = async || stack.json(&["status"]).await["deploy"]["phase"] == "step";
        wait_until("a step", LIMIT, step).await.unwrap();
    };

    let deploy = stack.start(&canary);
    under_way().await;
    stack.ops(&["pause"]).await.expect(0);
    stack.ops(&["resume"]).await.expect(0);
    stack.ops(&["abort"]).await.expect(0);
    deploy.ended().await.expect(11);
    assert_eq!(stack.serving().await, before);

    let deploy = stack.start(&canary);
    under_way().await;
    deploy.signal(Signal::INT);
    deploy.ended().await.expect(11);
    assert_eq!(stack.serving().await, before);
    assert_eq!(stack.running().await.len(), 2);
}
