//! One request and its answer: GET from a replica, past the balancer, and what the engine is asked by hand.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// The longest that a probe may take.
const LIMIT: Duration = Duration::from_secs(3);
/// The largest answer that is read; a page of metrics has some 100 KiB.
const LARGEST: u64 = 8 * 1024 * 1024;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    exchange(
        TcpStream::connect(address),
        LIMIT,
        &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: ops\r\n\r\n"),
    )
    .await
}

/// The same through a proxy on this machine, for a replica in a network that this machine has no part in.
pub async fn get_through(proxy: &Path, replica: IpAddr, path: &str) -> Result<Answer, String> {
    let head = format!("GET {path} HTTP/1.0\r\nHost: {replica}\r\nX-Replica: {replica}\r\nUser-Agent: ops\r\n\r\n");
    exchange(UnixStream::connect(proxy), LIMIT, &head).await
}

/// Connects, sends this text and reads to the end, all within the limit. The text is of HTTP/1.0, so that the answer
/// isn't sent in chunks.
pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    connected: impl Future<Output = io::Result<S>>,
    limit: Duration,
    request: &str,
) -> Result<Answer, String> {
    let exchange = async {
        let mut stream = connected.await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(LARGEST).read_to_end(&mut bytes).await?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = match timeout(limit, exchange).await {
        Ok(bytes) => bytes.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {limit:?}")),
    };
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("an answer that isn't HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("an answer that isn't HTTP")?;
    Ok(Answer { status, body: body.to_owned() })
}
