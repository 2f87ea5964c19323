//! A log that goes nowhere.

use std::process::Stdio;
use std::time::Duration;

use devkit::{free_port, wait_until};
use tokio::process::Child;
use tokio::time::timeout;

use crate::support::{LIMIT, Wire, client, database, program, signal};

/// A service whose output nobody reads; its address.
async fn with_stdout(stdout: Stdio) -> (Child, String, devkit::Database) {
    let port = free_port().unwrap();
    let database = database().await;
    let mut command = program();
    command.env("PORT", port.to_string()).env("BIND_ADDRESS", "127.0.0.1").env("DATABASE_URL", database.url());
    command.env("DRAIN_DELAY", "0s");
    let child = command.stdout(stdout).kill_on_drop(true).spawn().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let client = client();
    let ready = async || match client.get(format!("{url}/health/ready")).send().await {
        Ok(answer) => answer.status() == 200,
        Err(_) => false,
    };
    wait_until("the service is ready", LIMIT, ready).await.unwrap();
    (child, url, database)
}

/// Fills any buffer between the service and its output, and returns how many lines were dropped.
async fn log_much(url: &str) -> f64 {
    let mut connection = Wire::open(url).await.unwrap();
    let path = format!("/{}", "x".repeat(8000));
    for _ in 0..500 {
        connection.send_get(&path, "").await.unwrap();
        assert_eq!(timeout(LIMIT, connection.answer()).await.expect("an answer").unwrap().status, 404);
    }
    connection.send_get("/metrics", "").await.unwrap();
    let metrics = connection.answer().await.unwrap().body;
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("log_lines_dropped_total "));
    dropped.unwrap().parse().unwrap()
}

async fn terminate(mut child: Child) -> Option<i32> {
    signal(child.id().unwrap(), "TERM");
    timeout(Duration::from_secs(20), child.wait()).await.expect("the service ends").unwrap().code()
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_exit() {
    let (mut child, url, _database) = with_stdout(Stdio::piped()).await;
    let _unread = child.stdout.take().unwrap();

    assert!(log_much(&url).await > 0.0, "dropped lines are counted");

    assert_eq!(terminate(child).await, Some(0));
}

#[tokio::test]
async fn a_closed_log_holds_up_neither_requests_nor_the_exit() {
    let (mut child, url, _database) = with_stdout(Stdio::piped()).await;
    drop(child.stdout.take());

    assert!(log_much(&url).await > 0.0, "lost lines are counted");

    assert_eq!(terminate(child).await, Some(0));
}
