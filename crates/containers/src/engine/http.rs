//! GET from a replica, past the balancer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest that a probe may take.
const LIMIT: Duration = Duration::from_secs(3);
/// The largest answer that is read; a page of metrics has some 100 KiB.
const LARGEST: u64 = 8 * 1024 * 1024;

/// An answer to a GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// One request on a connection of its own; in HTTP/1.0, so that the answer isn't sent in chunks.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: ops\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(LARGEST).read_to_end(&mut bytes).await?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = match timeout(LIMIT, exchange).await {
        Ok(bytes) => bytes.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {LIMIT:?}")),
    };
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("an answer that isn't HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("an answer that isn't HTTP")?;
    Ok(Answer { status, body: body.to_owned() })
}
