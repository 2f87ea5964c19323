//! The database rule: what takes something away is neither deployed nor rolled back over by accident.

use crate::support::{Image, Stack, docker};

#[tokio::test]
async fn a_contract_migration_needs_to_be_allowed_forth_and_back() {
    let stack = Stack::up(&[]).await;
    let before = stack.serving().await;
    let image = Image::Contract.tag().await;
    for words in [&[][..], &["--migrate"], &["--allow-contract"]] {
        let refused = stack.ops(&[&["deploy", &image], words].concat()).await.expect(3);
        assert!(refused.stderr.contains("V9__contract_drop_email"), "{words:?}: {}", refused.stderr);
        assert_eq!(stack.serving().await, before, "{words:?}");
    }
    stack.ops(&["deploy", &image, "--migrate", "--allow-contract"]).await.expect(0);
    assert_eq!(stack.serving().await, ["green1:contract", "green2:contract", "green3:contract"]);

    let refused = stack.ops(&["rollback"]).await.expect(3);
    assert!(refused.stderr.contains("V9__contract_drop_email"), "{}", refused.stderr);
    stack.ops(&["rollback", "--allow-contract"]).await.expect(0);
    assert_eq!(stack.serving().await, before);
}

#[tokio::test]
async fn a_version_that_needs_what_a_later_one_took_away_is_refused() {
    let stack = Stack::up(&[]).await;
    let later = "insert into refinery_schema_history values (9, 'contract_drop_email', now()::text, '1')";
    let database = format!("{}-database-1", stack.name);
    docker(&["exec", &database, "psql", "--username=plinth", "--host=127.0.0.1", "--command", later]).await;
    let image = Image::Second.tag().await;

    let refused = stack.ops(&["deploy", &image, "--migrate", "--allow-contract"]).await.expect(3);

    assert!(refused.stderr.contains("needs what V9__contract_drop_email took away"), "{}", refused.stderr);
    assert_eq!(stack.running().await.len(), 2);
}
