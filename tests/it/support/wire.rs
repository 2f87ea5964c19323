//! HTTP by hand, for clients that misbehave and for those whose connections matter.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub struct Wire {
    stream: TcpStream,
    /// Read, but not yet part of an answer.
    rest: Vec<u8>,
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

impl RawAnswer {
    /// The server ends the connection after this answer.
    pub fn closes(&self) -> bool {
        self.head.to_lowercase().contains("\r\nconnection: close")
    }
}

impl Wire {
    pub async fn open(url: &str) -> Result<Self> {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, rest: Vec::new() })
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Sends a GET with further headers, each with its line end.
    pub async fn send_get(&mut self, path: &str, headers: &str) -> Result<()> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await
    }

    /// Sends a write with the token.
    pub async fn send_json(&mut self, method: &str, path: &str, body: &str) -> Result<()> {
        let (token, length) = (super::TOKEN, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n");
        self.send(format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")).await
    }

    /// Reads one answer; [`ErrorKind::UnexpectedEof`] when the connection ends before its first byte.
    pub async fn answer(&mut self) -> Result<RawAnswer> {
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            self.read(if self.rest.is_empty() { ErrorKind::UnexpectedEof } else { ErrorKind::InvalidData }).await?;
        };
        let head = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        let length = head
            .to_lowercase()
            .split("\r\n")
            .find_map(|line| line.strip_prefix("content-length:").and_then(|value| value.trim().parse::<usize>().ok()));
        let length = length.unwrap_or(0);
        while self.rest.len() < end + length {
            self.read(ErrorKind::InvalidData).await?;
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = String::from_utf8_lossy(&self.rest[end..end + length]).into_owned();
        self.rest.drain(..end + length);
        Ok(RawAnswer { status: status.ok_or(ErrorKind::InvalidData)?, head, body })
    }

    async fn read(&mut self, at_end: ErrorKind) -> Result<()> {
        if self.stream.read_buf(&mut self.rest).await? == 0 {
            return Err(Error::from(at_end));
        }
        Ok(())
    }

    /// Whether the server has ended the connection without another word; waits for that.
    pub async fn ended(&mut self) -> bool {
        let mut rest = Vec::new();
        matches!(self.stream.read_to_end(&mut rest).await, Ok(0) | Err(_)) && self.rest.is_empty()
    }

    /// Ends the connection with an RST, as a client that crashed does.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}
