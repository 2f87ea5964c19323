//! Readers beside each other, when they read, and databases that go away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::web::Bytes;
use devkit::{Fault, FaultProxy, Postgres, wait_until};
use futures_util::SinkExt as _;
use tiered_cache::{ChangeLog as _, LogReader};
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::super::reader::{LEAVE, REGISTER};
use super::super::upkeep::{DROP_OUT, RECOUNT};
use super::{LIMIT, Setup, config, insert, log, session, waiting};
use crate::store::migrations::migrate;

#[tokio::test]
async fn two_readers_are_told_alike_and_counted() {
    let mut setup = Setup::new().await;
    let mut other = setup.log.reader();
    assert_eq!(other.next().await.unwrap().readers, 2);
    setup.run(&insert("1, 3")).await;
    let (one, two) = (setup.read().await, other.next().await.unwrap());
    assert_eq!((one.changes, one.identity, one.readers), (two.changes, two.identity, 2));
    other.leave().await;
    assert_eq!(setup.read().await.readers, 1);
}

#[tokio::test]
async fn a_read_does_not_count_the_rows_of_the_readers() {
    let mut setup = Setup::new().await;
    setup.run("begin; lock table cache_readers in access exclusive mode").await;
    assert_eq!(setup.read().await.readers, 1);
    setup.run("rollback").await;
}

/// How many readers each read is told, and how many there are.
async fn counted(sql: &Client) -> (i64, i64) {
    let counted = "select readers, (select count(*) from cache_readers) from cache_log_state";
    let row = sql.query_one(counted, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn readers_that_come_stay_and_go_at_once_are_counted() {
    let setup = Setup::new().await;
    let crowd = (0..8_i64).map(|first| {
        let url = setup.database.url();
        async move {
            let sql = session(&url).await;
            for turn in 0..30_i64 {
                // Each id is one of two sessions', and the last turns leave the odd ones.
                let id = (first / 2) * 10 + turn % 10;
                sql.execute(REGISTER, &[&id]).await.unwrap();
                sql.execute(REGISTER, &[&id]).await.unwrap();
                if turn % 3 == 0 || id % 2 == 0 {
                    sql.execute(LEAVE, &[&id]).await.unwrap();
                }
            }
            // One that breaks off counts for nothing.
            sql.batch_execute("begin; insert into cache_readers select generate_series(500, 600); rollback")
                .await
                .unwrap();
        }
    });
    futures_util::future::join_all(crowd).await;

    let (readers, there) = counted(&setup.sql).await;
    assert!(readers == there && there > 1, "{readers}, {there}");
    setup.run("update cache_readers set seen = '-infinity' where id < 20").await;
    setup.run(DROP_OUT).await;
    let (readers, there) = counted(&setup.sql).await;
    assert!(readers == there && there > 1, "{readers}, {there}");
    setup.run("truncate cache_readers").await;
    assert_eq!(counted(&setup.sql).await, (0, 0));
}

#[tokio::test]
async fn two_that_come_or_go_in_the_same_moment_are_both_counted() {
    let setup = Setup::new().await;
    for (one, other, readers) in [
        ("insert into cache_readers values (1), (2); commit", REGISTER, 4),
        ("delete from cache_readers where id = 1; commit", LEAVE, 2),
        ("insert into cache_readers values (3); rollback", REGISTER, 3),
    ] {
        let sql = session(&setup.database.url()).await;
        let (write, end) = one.split_once("; ").unwrap();
        setup.run(&format!("begin; {write}")).await;
        let second = tokio::spawn(async move { sql.execute(other, &[&9_i64]).await.unwrap() });
        waiting(&setup, "transactionid").await;
        setup.run(end).await;
        assert_eq!(second.await.unwrap(), 1);
        assert_eq!(counted(&setup.sql).await, (readers, readers), "{one}");
    }
}

#[tokio::test]
async fn who_registers_again_waits_for_nobody() {
    let setup = Setup::new().await;
    let sql = session(&setup.database.url()).await;
    sql.execute(REGISTER, &[&7_i64]).await.unwrap();
    setup.run("begin; select from cache_log_state for update; set local statement_timeout = 0").await;
    sql.batch_execute("set statement_timeout = '5s'").await.unwrap();
    assert_eq!(sql.execute(REGISTER, &[&7_i64]).await.unwrap(), 1);
    assert_eq!(sql.execute(LEAVE, &[&8_i64]).await.unwrap(), 0);
    setup.run("rollback").await;
}

#[tokio::test]
async fn readers_that_were_not_counted_are_counted_by_the_upkeep() {
    let setup = Setup::new().await;
    let sql = session(&setup.database.url()).await;
    // As `pg_restore --disable-triggers` writes them, and some go before anybody has looked.
    setup.run("set session_replication_role = replica; insert into cache_readers select generate_series(1, 3)").await;
    setup.run("reset session_replication_role; delete from cache_readers where id in (1, 2)").await;
    assert_eq!(counted(&sql).await, (0, 2));

    // A number that changes meanwhile is left to the next turn.
    setup.run("begin; insert into cache_readers values (4)").await;
    let recount = tokio::spawn(async move { sql.execute(RECOUNT, &[]).await.unwrap() });
    waiting(&setup, "transactionid").await;
    setup.run("commit").await;
    assert_eq!(recount.await.unwrap(), 0);
    assert_eq!(counted(&setup.sql).await, (1, 3));

    assert_eq!(setup.sql.execute(RECOUNT, &[]).await.unwrap(), 1);
    assert_eq!(counted(&setup.sql).await, (3, 3));
    assert_eq!(setup.sql.execute(RECOUNT, &[]).await.unwrap(), 0, "it is right");
    setup.run("insert into cache_readers values (5); update cache_log_state set readers = 9").await;
    setup.run(RECOUNT).await;
    assert_eq!(counted(&setup.sql).await, (4, 4), "too many are no better");
}

#[tokio::test]
async fn restored_readers_are_counted_and_a_role_without_rights_on_the_number_can_register() {
    let mut setup = Setup::new().await;
    let role = format!("reader_of_{}", setup.database.name().to_lowercase());
    // As `pg_dump --data-only` begins.
    setup.run("select set_config('search_path', '', false)").await;
    setup
        .run(&format!("create role {role}; grant select, insert, update, delete on public.cache_readers to {role}"))
        .await;
    let sink = setup.sql.copy_in("copy public.cache_readers (id) from stdin").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from_static(b"1\n2\n")).await.unwrap();
    sink.finish().await.unwrap();
    assert_eq!(setup.read().await.readers, 3);

    setup.run(&format!("set search_path = public; set role {role}")).await;
    for _ in 0..2 {
        setup.sql.execute(REGISTER, &[&7_i64]).await.unwrap();
    }
    assert_eq!(setup.read().await.readers, 4);
    setup.sql.execute(LEAVE, &[&7_i64]).await.unwrap();
    setup.run(&format!("reset role; drop owned by {role}; drop role {role}")).await;
    assert_eq!(setup.read().await.readers, 3);
}

/// Reads until something changed; how long that took since `start`.
async fn heard(reader: &mut dyn LogReader, start: Instant) -> Duration {
    while reader.next().await.unwrap().changes.is_empty() {}
    start.elapsed()
}

#[tokio::test]
async fn who_is_woken_reads_at_once_and_who_is_not_half_a_second_later() {
    let mut setup = Setup::new().await;
    let (mut woken, mut left) = (Vec::new(), Vec::new());
    for id in 1..10 {
        let start = Instant::now();
        setup.run(&insert(&format!("{id}, {id}"))).await;
        if id % 2 == 0 {
            left.push(heard(&mut *setup.reader, start).await);
        } else {
            let (waking, took) = tokio::join!(setup.log.wake(), heard(&mut *setup.reader, start));
            waking.unwrap();
            woken.push(took);
        }
    }
    woken.sort();
    left.sort();
    assert!(woken[2] < Duration::from_millis(250), "{woken:?}");
    assert!(left[1] > woken[2] && left[1] < Duration::from_secs(1), "{left:?}");
}

#[tokio::test]
async fn many_that_wake_at_once_send_little_and_nobody_is_passed_over() {
    let setup = Setup::new().await;
    let heard = Arc::new(AtomicUsize::new(0));
    let (client, mut connection) = tokio_postgres::connect(&setup.database.url(), NoTls).await.unwrap();
    let counter = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            counter.fetch_add(usize::from(matches!(message, AsyncMessage::Notification(_))), Ordering::Relaxed);
        }
    });
    client.batch_execute("listen cache_log").await.unwrap();
    for woken in futures_util::future::join_all((0..500).map(|_| setup.log.wake())).await {
        woken.unwrap();
    }
    setup.log.wake().await.unwrap();
    client.batch_execute("select 1").await.unwrap();
    assert!((2..=4).contains(&heard.load(Ordering::Relaxed)), "{heard:?}");
}

#[tokio::test]
async fn a_database_that_is_back_is_read_again_soon_and_nothing_was_missed() {
    let setup = Setup::new().await;
    let server: tokio_postgres::Config = setup.database.url().parse().unwrap();
    let proxy = FaultProxy::start(([127, 0, 0, 1], server.get_ports()[0]).into()).await.unwrap();
    let mut reader = log(&setup.database.url_through(proxy.port())).reader();
    reader.next().await.unwrap();
    proxy.set(Fault::Refuse);
    let others = "datname = current_database() and pid <> pg_backend_pid()";
    setup.run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where {others}")).await;
    setup.run(&insert("1, 2")).await;
    let mut failures = 0;
    while failures < 5 {
        failures += i32::from(reader.next().await.is_err());
    }

    let back = Instant::now();
    proxy.set(Fault::None);
    let read = loop {
        if let Ok(read) = reader.next().await {
            break read;
        }
    };

    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    assert_eq!((read.anew_since, read.changes.len()), (None, 2));
}

/// As after a transaction of millions of rows, in statements of a thousand.
#[tokio::test]
async fn a_read_that_the_server_cannot_do_in_time_is_not_asked_for_again_and_again() {
    let mut setup = Setup::new().await;
    setup
        .run(
            "alter function cache_log_identity rename to identity_in_time;
             create function cache_log_identity() returns bigint language sql as
                 'select identity_in_time() from pg_sleep(5)'",
        )
        .await;
    for _ in 0..3 {
        assert!(setup.reader.next().await.is_err());
    }
    setup.run("drop function cache_log_identity; alter function identity_in_time rename to cache_log_identity").await;
    let read = setup.read().await;
    assert_eq!(read.anew_since, Some(read.position));
    assert_eq!(setup.changes().await, []);
}

#[tokio::test]
async fn a_silent_database_is_given_up_after_a_second() {
    let server = Postgres::start().await.unwrap();
    migrate(&config(&server.url("postgres"))).await.unwrap();
    let mut reader = log(&server.url("postgres")).reader();
    reader.next().await.unwrap();
    server.freeze().unwrap();
    let start = Instant::now();
    assert!(reader.next().await.is_err());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    server.thaw().unwrap();
    let reads = async || reader.next().await.is_ok_and(|read| read.anew_since.is_none());
    wait_until("it is read again", LIMIT, reads).await.unwrap();
}
