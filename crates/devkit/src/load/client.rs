//! One client with one connection, on hyper's own: no pool, nothing sent twice.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{Ask, Failure};

pub(super) struct Client {
    to: SocketAddr,
    keep: bool,
    connection: Option<SendRequest<Channel<Bytes>>>,
    /// The body of the last answer that wasn't good.
    pub(super) said: String,
}

impl Client {
    pub(super) fn new(to: SocketAddr, keep: bool) -> Self {
        Self { to, keep, connection: None, said: String::new() }
    }

    /// The status of a complete answer.
    pub(super) async fn send(&mut self, ask: &Ask, traceparent: &str) -> Result<u16, Failure> {
        let mut request = Request::builder().method(ask.method).uri(&ask.path);
        request = request.header("host", self.to.to_string()).header("traceparent", traceparent);
        request = request.header("connection", if self.keep { "keep-alive" } else { "close" });
        if let Some(token) = &ask.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !ask.body.is_empty() {
            request = request.header("content-type", "application/json").header("content-length", ask.body.len());
        }
        let request = request.body(body(ask)).map_err(|_| Failure::Malformed)?;
        let kept = match self.connection.take() {
            // One that the server ended between two requests carried nothing of this one.
            Some(mut open) => open.ready().await.is_ok().then_some(open),
            None => None,
        };
        let mut connection = if let Some(open) = kept { open } else { connect(self.to).await? };
        let answer = connection.send_request(request).await.map_err(|error| kind(&error, Failure::Closed))?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|error| kind(&error, Failure::Cut))?.to_bytes();
        self.connection = self.keep.then_some(connection);
        if status < 400 {
            return Ok(status);
        }
        self.said = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        Err(Failure::Status(status))
    }
}

/// In two halves, by a task that ends with the connection.
fn body(ask: &Ask) -> Channel<Bytes> {
    let (mut halves, body) = Channel::new(1);
    let (mut first, pause) = (Bytes::from(ask.body.clone()), ask.slow_body);
    if !first.is_empty() {
        let second = first.split_off(first.len() / 2);
        tokio::spawn(async move {
            if halves.send_data(first).await.is_ok() {
                sleep(pause).await;
                let _ = halves.send_data(second).await;
            }
        });
    }
    body
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Channel<Bytes>>, Failure> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        _ => Failure::NoConnection,
    };
    let stream = TcpStream::connect(to).await.map_err(refused)?;
    stream.set_nodelay(true).map_err(|_| Failure::Reset)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| kind(&error, Failure::Closed))?;
    // Ends with its sender; its error is the request's as well.
    tokio::spawn(connection);
    Ok(sender)
}

fn kind(error: &hyper::Error, ended: Failure) -> Failure {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match cause {
        _ if error.is_parse() => Failure::Malformed,
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Failure::Reset,
        _ => ended,
    }
}
