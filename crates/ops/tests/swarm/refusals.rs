//! What gets no traffic, and why.

use crate::support::{Image, Stack};

#[tokio::test]
async fn a_version_that_can_not_serve_gets_no_traffic_and_its_cause_is_named() {
    let stack = Stack::up().await;
    let (before, services) = (stack.serving().await, stack.services().await);
    let secret = "kanarienvogel";
    let database = format!("DATABASE_URL=postgres://plinth:{secret}@192.0.2.1/plinth");
    let never: &[&str] = &["--env", "DATABASE_URL_FILE=", "--env", &database, "--ready-timeout", "20s"];
    let cases: [(Image, &[&str], &str); 3] = [
        (Image::Second, never, "/health/ready: no healthy task"),
        (Image::Crashes, &[], "exit code 3"),
        (Image::RunsOutOfMemory, &[], "OOM"),
    ];

    for (image, more, cause) in cases {
        let tag = image.tag().await;
        let args = [&["deploy", &tag, "--no-migration-check"], more].concat();
        let ended = image.refused(cause, async || stack.ops(&stack.args(&args)).await.expect(5)).await;
        println!("{image:?}: {}", ended.stderr);

        assert!(ended.stderr.contains(cause), "{image:?}: {}", ended.stderr);
        assert!(image == Image::RunsOutOfMemory || ended.stderr.contains("its last lines"), "{}", ended.stderr);
        assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
        assert_eq!((stack.serving().await, stack.services().await), (before.clone(), services.clone()), "{image:?}");
    }
}
