//! An engine that begins an answer and never ends it.

use std::net::SocketAddr;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::deploy::parts::{Balancer, Engine, Slot};
use crate::exit::Exit;
use crate::unit::fake::Fake;

/// One container that was restarted, at the first slot's address.
const LIST: &str = r#"[{"Id": "one", "NetworkSettings": {"Networks": {"front": {"IPAddress": "10.0.0.11"}}}}]"#;
const CONTAINER: &str = r#"{"Name": "/one", "RestartCount": 1, "State": {"Running": true}}"#;
const STALLS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

async fn answer(stream: UnixStream) {
    let mut stream = BufReader::new(stream);
    let mut path = String::new();
    while stream.read_line(&mut path).await.is_ok_and(|read| read > 2) {}
    let whole = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = match path.split(' ').nth(1).unwrap_or_default() {
        path if path.contains("/logs") || path.contains("/events") => STALLS.to_owned(),
        path if path.contains("/containers/json") => whole(LIST),
        _ => whole(CONTAINER),
    };
    stream.write_all(answer.as_bytes()).await.unwrap();
    // Open until the other side gives up.
    let _ = stream.read_line(&mut path).await;
}

/// Its folder must outlive it.
fn engine() -> (TempDir, Docker) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    (folder, Docker::connect_with_unix(path.to_str().unwrap(), 1, API_DEFAULT_VERSION).unwrap())
}

/// Generous: it bounds what hangs.
async fn within_reason<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("nobody waits for the end of an answer for ever")
}

#[tokio::test]
async fn a_log_that_never_ends_is_empty() {
    let (_folder, engine) = engine();
    assert_eq!(within_reason(engine.log("one")).await.unwrap(), "");
}

#[tokio::test]
async fn events_that_never_end_make_the_engine_unreachable() {
    let (_folder, engine) = engine();
    let slots: Vec<Slot> = Fake::new().slots().await.unwrap();
    assert_eq!(slots[0].address, SocketAddr::from(([10, 0, 0, 11], 3000)));
    let failure = within_reason(engine.containers(&slots)).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable, "{failure}");
}
