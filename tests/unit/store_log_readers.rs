//! Readers beside each other, when they read, and databases that go away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use devkit::{Fault, FaultProxy, Postgres, wait_until};
use tiered_cache::{ChangeLog as _, LogReader};
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, NoTls};

use super::super::reader::{LEAVE, REGISTER};
use super::{COUNT_AGAIN, DROP_OUT, LIMIT, Setup, config, insert, log, session};
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
async fn readers_that_come_and_go_at_once_are_all_counted() {
    let mut setup = Setup::new().await;
    let join = async |id: i64| session(&setup.database.url()).await.execute(REGISTER, &[&id]).await.unwrap();
    for _ in 0..2 {
        futures_util::future::join_all((0..20).map(join)).await;
    }
    assert_eq!(setup.read().await.readers, 21, "those who register again count once");
    let leave = async |id: i64| session(&setup.database.url()).await.execute(LEAVE, &[&id]).await.unwrap();
    futures_util::future::join_all((0..15).map(leave)).await;
    assert_eq!(setup.read().await.readers, 6);
    setup.run("update cache_readers set seen = now() - interval '1 hour' where id between 0 and 17").await;
    setup.run(DROP_OUT).await;
    assert_eq!(setup.read().await.readers, 3);

    // As rows that were restored without triggers.
    setup.run("update cache_log_state set readers = 0").await;
    setup.run(COUNT_AGAIN).await;
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
