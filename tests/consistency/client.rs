//! A small HTTP/1.1 client on one keep-alive connection: thousands of requests a second must cost little, and a
//! request must never be sent twice.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than the service's own limit for a request.
const TIMEOUT: Duration = Duration::from_secs(12);

/// One connection to one replica, made when it is needed.
pub struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    received: Vec<u8>,
}

/// An answer, as far as the checker looks at it.
#[derive(Default)]
pub struct Answer {
    pub status: u16,
    /// Of `ETag: W/"1-7"`: what follows the schema.
    pub etag: Option<u64>,
    /// Of `X-Version`.
    pub version: Option<u64>,
    /// Which tier answered, the detail of `Cache-Status`.
    pub tier: &'static str,
    pub body: Vec<u8>,
    length: usize,
    close: bool,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, received: Vec::new() }
    }

    /// GET, with the least version that will do.
    pub async fn get(&mut self, path: &str, min_version: u64) -> Result<Answer> {
        let header = if min_version > 0 { format!("x-min-version: {min_version}\r\n") } else { String::new() };
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: checker\r\n{header}\r\n")).await
    }

    /// A write with the token.
    pub async fn write(&mut self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let (token, length) = (super::world::TOKEN, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nhost: checker\r\nauthorization: Bearer {token}\r\n");
        let kind = "content-type: application/json";
        self.send(&format!("{head}{kind}\r\ncontent-length: {length}\r\n\r\n{body}")).await
    }

    /// After an error, or when the caller stops waiting, the connection is closed.
    async fn send(&mut self, request: &str) -> Result<Answer> {
        let taken = self.stream.take();
        let exchange = async {
            let mut stream = match taken {
                Some(stream) => stream,
                None => TcpStream::connect(self.address).await?,
            };
            stream.set_nodelay(true)?;
            stream.write_all(request.as_bytes()).await?;
            let answer = receive(&mut stream, &mut self.received).await?;
            Ok((stream, answer))
        };
        let late = |_| Err(Error::from(ErrorKind::TimedOut));
        let (stream, answer) = tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(late)?;
        self.stream = (!answer.close).then_some(stream);
        Ok(answer)
    }
}

async fn receive(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<Answer> {
    received.clear();
    let end = loop {
        if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        more(stream, received).await?;
    };
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let mut answer = parse(&head).ok_or_else(|| Error::new(ErrorKind::InvalidData, head))?;
    while received.len() < end + 4 + answer.length {
        more(stream, received).await?;
    }
    answer.body = received[end + 4..].to_vec();
    Ok(answer)
}

async fn more(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<()> {
    if stream.read_buf(received).await? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn parse(head: &str) -> Option<Answer> {
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, tier: "no tier", ..Answer::default() };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => answer.length = value.parse().ok()?,
            "etag" => {
                answer.etag = value.trim_matches('"').rsplit_once('-').and_then(|(_, version)| version.parse().ok());
            }
            "x-version" => answer.version = value.parse().ok(),
            "cache-status" => answer.tier = tier(value),
            "connection" => answer.close = value.eq_ignore_ascii_case("close"),
            // The service sends its small bodies whole.
            "transfer-encoding" => return None,
            _ => {}
        }
    }
    Some(answer)
}

fn tier(status: &str) -> &'static str {
    let detail = status.rsplit_once("detail=").map_or("", |(_, detail)| detail);
    let known = ["l1", "l2", "l3", "source"].into_iter().find(|tier| *tier == detail);
    known.unwrap_or("a stale copy")
}
