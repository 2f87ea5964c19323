//! Back by an image, and what a dry run may not do.

use std::collections::BTreeMap;
use std::fs;

use crate::support::{Image, Stack, docker};

/// Every file of the state with its content.
fn state(stack: &Stack) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let files = fs::read_dir(stack.folder.path()).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn a_version_whose_containers_are_gone_comes_back_as_it_was_although_its_tag_was_moved() {
    let stack = Stack::up(&[]).await;
    let tag = format!("plinth:{}", stack.name);
    docker(&["tag", &Image::Second.tag().await, &tag]).await;
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &tag]).await;
    stack.ops(&["deploy", &tag, "--replicas", "2"]).await.expect(0);
    let gone = stack.running().await.into_iter().filter(|name| name.starts_with("green"));
    docker(&["tag", &Image::Third.tag().await, &tag]).await;
    stack.ops(&["deploy", &tag, "--keep-warm", "0s"]).await.expect(0);
    for name in gone {
        docker(&["rm", "--force", &name]).await;
    }

    stack.ops(&["rollback", "2"]).await.expect(0);

    docker(&["rmi", &tag]).await;
    assert_eq!(stack.serving().await, ["green1:2", "green2:2"]);
    let running = stack.running().await;
    let green = running.iter().find(|name| name.starts_with("green1")).unwrap();
    assert_eq!(docker(&["inspect", "--format", "{{.Image}}", green]).await, id);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let stack = Stack::up(&[]).await;
    stack.ops(&["rollback", "--dry-run"]).await.expect(3);
    assert_eq!(state(&stack), BTreeMap::new());
    stack.ops(&["deploy", &Image::Second.tag().await]).await.expect(0);
    // Old replicas whose time is over, and a deploy that was interrupted: any other command would act on either.
    let journal = stack.folder.path().join("deploy.json");
    let mut deploy: serde_json::Value = serde_json::from_slice(&fs::read(&journal).unwrap()).unwrap();
    for (field, value, code) in [("warm_until", 1.into(), 0), ("phase", "started".into(), 3)] {
        deploy[field] = value;
        fs::write(&journal, deploy.to_string()).unwrap();
        let (before, running, serving) = (state(&stack), stack.running().await, stack.serving().await);

        stack.ops(&["rollback", "--dry-run"]).await.expect(code);
        stack.ops(&["deploy", &Image::Third.tag().await, "--dry-run"]).await.expect(0);

        assert_eq!((state(&stack), stack.running().await, stack.serving().await), (before, running, serving));
    }
}
