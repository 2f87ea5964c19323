//! Whoever writes, and however, the log has it.

use actix_web::web::Bytes;
use devkit::Postgres;
use futures_util::SinkExt as _;
use tiered_cache::{Change, ChangeLog as _};
use tokio_postgres::Client;

use super::{LIMIT, NONE, Setup, config, hash, insert, log, session, user, waiting, whole};
use crate::store::migrations::migrate;

/// Adds users by COPY, as a restored dump does.
async fn copy(sql: &Client, rows: &str) {
    let sink = sql.copy_in("copy public.users (id, name, email) from stdin").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::copy_from_slice(rows.as_bytes())).await.unwrap();
    sink.finish().await.unwrap();
}

#[tokio::test]
async fn copied_rows_are_told_also_without_a_search_path() {
    let mut setup = Setup::new().await;
    // As `pg_dump --data-only` begins.
    setup.run("select set_config('search_path', '', false)").await;
    copy(&setup.sql, "1\ta\ta@example.com\n2\tb\tb@example.com\n").await;
    assert_eq!(setup.users(1..10).await, [1, 2]);
}

#[tokio::test]
async fn a_row_that_gets_another_key_is_told_under_both() {
    let mut setup = Setup::new().await;
    setup.run(&insert("1, 3")).await;
    setup.changes().await;
    setup.run("update users set id = id + 10 where id = 2").await;
    assert_eq!(setup.users(1..20).await, [2, 12]);
}

#[tokio::test]
async fn a_row_deleted_and_inserted_again_gets_a_higher_version() {
    let mut setup = Setup::new().await;
    setup.run(&insert("1, 1")).await;
    setup.run("select setval('row_version', 1000)").await;
    setup.run("update users set name = 'b'").await;
    // As of a server that was set up anew beside its old rows.
    setup.run("select setval('row_version', 1)").await;
    setup.run(&format!("delete from users; {}", insert("1, 1"))).await;
    let versions: Vec<u64> = setup.changes().await.iter().map(|change| change.version).collect();
    assert!(versions[1] == 1001 && versions.is_sorted_by(|one, next| one < next), "{versions:?}");
}

/// The versions told of a user, the oldest first.
async fn versions_of(setup: &mut Setup, id: i64) -> Vec<u64> {
    let changes = setup.changes().await;
    changes.iter().filter(|change| hash(change) == Some(user(id))).map(|change| change.version).collect()
}

#[tokio::test]
async fn the_former_key_of_a_row_is_told_with_a_version_of_its_own() {
    let mut setup = Setup::new().await;
    setup.run(&insert("1, 3")).await;
    setup.changes().await;
    setup.run("update users set id = 11 where id = 1; update users set id = 1 where id = 2").await;
    let told = versions_of(&mut setup, 1).await;
    assert!(told[0] > 3 && told.last() > told.first(), "{told:?}");
    let replayed = "set session_replication_role = replica; update users set id = 13, version = 2000 where id = 3;
                    update users set id = 14 where id = 13";
    setup.run(replayed).await;
    let version = |id| move |change: &Change| (hash(change) == Some(user(id))).then_some(change.version);
    let told = setup.changes().await;
    assert_eq!(told.iter().filter_map(version(3)).collect::<Vec<_>>(), [2000]);
    assert!(told.iter().filter_map(version(13)).max() > Some(2000), "its version stayed: {told:?}");
}

#[tokio::test]
async fn a_row_that_waited_for_the_deletion_of_another_one_is_told_with_another_version() {
    let mut setup = Setup::new().await;
    for role in ["origin", "replica"] {
        setup.run(&insert("1, 1")).await;
        setup.changes().await;
        // It deletes the row, and has told nothing yet.
        let (deleting, inserting) = (session(&setup.database.url()).await, session(&setup.database.url()).await);
        setup.run("select pg_advisory_lock(7)").await;
        let delete = "with gone as (delete from users returning id) select pg_advisory_xact_lock(7) from gone";
        let delete = format!("set session_replication_role = {role}; {delete}");
        let deleting = tokio::spawn(async move { deleting.batch_execute(&delete).await });
        waiting(&setup, "advisory").await;
        let inserting = tokio::spawn(async move { inserting.batch_execute(&insert("1, 1")).await });
        waiting(&setup, "transactionid").await;
        setup.run("select pg_advisory_unlock(7)").await;
        deleting.await.unwrap().unwrap();
        inserting.await.unwrap().unwrap();
        let told = versions_of(&mut setup, 1).await;
        assert!(told.len() == 2 && told[0] != told[1], "{role}: {told:?}");
        setup.run("delete from users").await;
    }
}

#[tokio::test]
async fn replicated_rows_leave_no_sequence_behind_them() {
    let mut setup = Setup::new().await;
    setup.run("set session_replication_role = replica").await;
    setup.run("insert into users (id, name, email, version) values (1, 'a', 'a@example.com', 5000000)").await;
    assert!(setup.read().await.newest >= 5_000_000);
}

#[tokio::test]
async fn versions_grow_though_the_sequence_was_set_back() {
    let setup = Setup::new().await;
    setup.run(&insert("1, 1")).await;
    setup.run("select setval('row_version', 1000); update users set name = 'b'").await;
    setup.run("select setval('row_version', 1)").await;
    let mut before = 1001;
    for write in ["update users set name = 'c'", "update users set name = 'd'"] {
        let row = setup.sql.query_one(&format!("{write} returning version"), &[]).await.unwrap();
        assert!(row.get::<_, i64>(0) > before);
        before = row.get(0);
    }
    setup.run("select setval('row_version', 1)").await;
    let delete = crate::store::users::DELETE;
    assert!(setup.sql.query_one(delete, &[&1_i64]).await.unwrap().get::<_, i64>(0) > before);
}

#[tokio::test]
async fn who_may_write_a_table_needs_no_further_rights() {
    let mut setup = Setup::new().await;
    let role = format!("writer_of_{}", setup.database.name().to_lowercase());
    setup
        .run(&format!(
            "create role {role}; grant insert, update, delete, truncate, select on users to {role};
             grant usage on sequence row_version to {role};
             set role {role}; {}; update users set name = 'b'; delete from users; reset role;
             drop owned by {role}; drop role {role}",
            insert("1, 1")
        ))
        .await;
    assert_eq!(setup.users(1..10).await, [1]);
}

#[tokio::test]
async fn a_session_that_replicates_is_told_row_by_row_up_to_a_limit() {
    let mut setup = Setup::new().await;
    setup.run("set session_replication_role = replica").await;
    setup.run(&insert("1, 3")).await;
    setup.run("update users set id = 12 where id = 2; delete from users where id = 3").await;
    assert_eq!(setup.users(1..20).await, [1, 2, 3, 12]);
    setup.run(&format!("begin; {}; {}; commit", insert("100, 1099"), insert("2000, 9999"))).await;
    let changes = setup.changes().await;
    assert_eq!((changes.len(), changes.last()), (1001, Some(&whole("user"))));
    setup.run(&insert("20000, 20000")).await;
    assert_eq!(setup.users(20000..20001).await, [20000], "the next transaction");
    setup.run("truncate users").await;
    assert_eq!(setup.changes().await, [whole("user")]);
}

#[tokio::test]
async fn what_a_logical_subscriber_receives_is_told() {
    let server = Postgres::start().await.unwrap();
    let admin = session(&server.url("postgres")).await;
    for statement in ["alter system set wal_level = logical", "create database other"] {
        admin.batch_execute(statement).await.unwrap();
    }
    server.restart().await.unwrap();
    for database in ["postgres", "other"] {
        migrate(&config(&server.url(database))).await.unwrap();
    }
    let (here, there) = (session(&server.url("postgres")).await, session(&server.url("other")).await);
    let slot = "select pg_create_logical_replication_slot('users', 'pgoutput')";
    for statement in ["create publication users for table users", slot] {
        here.batch_execute(statement).await.unwrap();
    }
    let mut reader = log(&server.url("other")).reader();
    reader.next().await.unwrap();
    let url = server.url("postgres");
    let subscribe =
        format!("create subscription users connection '{url}' publication users with (create_slot = false)");
    there.batch_execute(&subscribe).await.unwrap();

    let mut told = async |write: &str, wanted: &[i64]| {
        here.batch_execute(write).await.unwrap();
        let mut left: Vec<u128> = wanted.iter().map(|id| user(*id)).collect();
        let all = async {
            while !left.is_empty() {
                let read = reader.next().await.unwrap();
                left.retain(|user| !read.changes.iter().filter_map(hash).any(|told| told == *user));
            }
        };
        tokio::time::timeout(LIMIT, all).await.expect(write);
    };
    told(&insert("1, 3"), &[1, 2, 3]).await;
    told("update users set name = 'b' where id = 2", &[2]).await;
    told("update users set id = 13 where id = 3", &[3, 13]).await;
    told("delete from users where id = 1", &[1]).await;
    told("truncate users", &NONE).await;
    let truncated = async { while !reader.next().await.unwrap().changes.contains(&whole("user")) {} };
    tokio::time::timeout(LIMIT, truncated).await.expect("the truncation arrives");
}
