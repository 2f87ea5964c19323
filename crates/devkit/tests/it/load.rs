//! The load driver tells every way in which a request can fail.

use std::sync::Arc;
use std::time::Duration;

use devkit::load::{Ask, Failure, Load, Report, Traffic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Three requests, one after the other, to a server that answers the nth connection so.
async fn three(kept: bool, behave: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Report {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            behave(number, stream);
        }
    });
    ask(to, kept).await
}

async fn ask(to: std::net::SocketAddr, kept: bool) -> Report {
    let (kept, fresh) = if kept { (1, 0) } else { (0, 1) };
    let asks = Arc::new(|_| Ask { method: "POST", path: "/".into(), body: "{}".into(), ..Ask::default() });
    let (pause, limit) = (Duration::ZERO, Duration::from_secs(2));
    Load::start(&Traffic { to, kept, fresh, pause, limit, count: 3, sampled: 3, asks }).finished().await
}

/// Reads a request and writes this, as often as the client asks or once; then the connection ends.
fn answer(mut stream: TcpStream, bytes: &'static str, once: bool) {
    tokio::spawn(async move {
        let mut request = [0; 4096];
        while stream.read(&mut request).await.unwrap_or(0) > 0 {
            // The second half of the body may come by itself.
            if request.contains(&b'}') {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                request.fill(0);
                if once {
                    break;
                }
            }
        }
    });
}

fn counts(report: &Report) -> Vec<(Failure, u64)> {
    report.failed.iter().map(|((failure, _), count)| (*failure, *count)).collect()
}

#[tokio::test]
async fn good_answers_are_counted_on_kept_and_on_new_connections() {
    for kept in [true, false] {
        let report = three(kept, move |number, stream| {
            assert!(!kept || number == 0, "one connection");
            answer(stream, OK, false);
        })
        .await;
        assert_eq!((report.good[&200], report.failures(), report.traces.len()), (3, 0, 1));
    }
}

#[tokio::test]
async fn each_failure_has_its_name_and_nothing_is_sent_again() {
    let cases = [
        ("", Failure::Closed),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", Failure::Cut),
        ("nonsense\r\n\r\n", Failure::Malformed),
        ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", Failure::Status(502)),
    ];
    for (bytes, failure) in cases {
        let report = three(true, move |_, stream| answer(stream, bytes, true)).await;
        assert_eq!(counts(&report), [(failure, 3)]);
    }
    let reset = |_, stream: TcpStream| {
        tokio::spawn(async move {
            stream.readable().await.unwrap();
            stream.set_zero_linger().unwrap();
        });
    };
    let report = three(true, reset).await;
    assert_eq!(counts(&report), [(Failure::Reset, 3)]);
    let report = three(true, |_, stream| std::mem::forget(stream)).await;
    assert_eq!(counts(&report), [(Failure::Timeout, 3)]);
    let nobody = ([127, 0, 0, 1], devkit::free_port().unwrap()).into();
    assert_eq!(counts(&ask(nobody, true).await), [(Failure::Refused, 3)]);
}
