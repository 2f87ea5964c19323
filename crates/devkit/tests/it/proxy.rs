use std::net::SocketAddr;
use std::time::{Duration, Instant};

use devkit::{Fault, FaultProxy, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::LIMIT;

/// Long enough to see that nothing comes; a machine too slow for it makes these tests pass, not fail.
const SILENCE: Duration = Duration::from_millis(200);

async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

async fn proxy() -> FaultProxy {
    FaultProxy::start(echo_server().await).await.unwrap()
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.addr()).await.unwrap()
}

async fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"hello").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"hello");
    Ok(())
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(SILENCE, echo(stream)).await.is_err()
}

#[tokio::test]
async fn without_a_fault_bytes_flow_and_connections_are_counted() {
    let proxy = proxy().await;
    let mut stream = connect(&proxy).await;
    echo(&mut stream).await.unwrap();
    assert_eq!((proxy.connections(), proxy.accepted()), (1, 1));
    drop(stream);
    wait_until("none is open", LIMIT, async || proxy.connections() == 0).await.unwrap();
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_half_closed_connection_still_gets_its_answer_in_full() {
    let proxy = proxy().await;
    let (mut read, mut write) = connect(&proxy).await.into_split();
    let sent = vec![7; 5_000_000];
    let send = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, count) = tokio::join!(send, read.read_to_end(&mut received));
    assert_eq!(count.unwrap(), sent.len());
    assert!(received == sent);
}

#[tokio::test]
async fn latency_delays_answers_side_by_side() {
    let proxy = proxy().await;
    let mut stream = connect(&proxy).await;
    echo(&mut stream).await.unwrap();
    proxy.set(Fault::Latency(SILENCE));
    let start = Instant::now();
    echo(&mut stream).await.unwrap();
    assert!(start.elapsed() >= SILENCE);
}

#[tokio::test]
async fn a_black_hole_swallows_on_existing_and_new_connections() {
    let proxy = proxy().await;
    let mut used = connect(&proxy).await;
    let mut idle = connect(&proxy).await;
    echo(&mut used).await.unwrap();
    echo(&mut idle).await.unwrap();

    proxy.set(Fault::BlackHole);
    assert!(is_silent(&mut used).await);
    let mut new = connect(&proxy).await;
    assert!(is_silent(&mut new).await);

    proxy.set(Fault::None);
    assert!(echo(&mut used).await.is_err(), "it lost bytes, so it is reset");
    assert!(echo(&mut new).await.is_err(), "it lost bytes, so it is reset");
    echo(&mut idle).await.unwrap();
    echo(&mut connect(&proxy).await).await.unwrap();
}

#[tokio::test]
async fn refuse_closes_the_listener_and_keeps_connections() {
    let proxy = proxy().await;
    let mut existing = connect(&proxy).await;
    echo(&mut existing).await.unwrap();
    for _ in 0..20 {
        proxy.set(Fault::Refuse);
        let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        echo(&mut existing).await.unwrap();
        proxy.set(Fault::None);
        echo(&mut connect(&proxy).await).await.unwrap();
    }
}

#[tokio::test]
async fn half_open_connections_stay_silent_and_new_ones_work() {
    let proxy = proxy().await;
    let mut existing = connect(&proxy).await;
    echo(&mut existing).await.unwrap();

    proxy.set(Fault::HalfOpen);
    assert!(is_silent(&mut existing).await);
    echo(&mut connect(&proxy).await).await.unwrap();

    proxy.set(Fault::None);
    assert!(is_silent(&mut existing).await, "the peer has vanished for good");
}

#[tokio::test]
async fn cut_resets_every_connection() {
    let proxy = proxy().await;
    let mut stream = connect(&proxy).await;
    echo(&mut stream).await.unwrap();
    proxy.cut();
    let broken = stream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    wait_until("none is open", LIMIT, async || proxy.connections() == 0).await.unwrap();
    echo(&mut connect(&proxy).await).await.unwrap();
}

#[tokio::test]
async fn after_a_change_of_target_new_connections_reach_the_other_server_and_old_ones_go_on() {
    let proxy = proxy().await;
    let mut old = connect(&proxy).await;
    echo(&mut old).await.unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.forward_to(silent.local_addr().unwrap());
    let mut new = connect(&proxy).await;
    assert!(is_silent(&mut new).await);
    echo(&mut old).await.unwrap();
}
