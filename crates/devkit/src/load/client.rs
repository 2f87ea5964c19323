//! One client with one connection, on hyper's own: no pool, nothing sent twice.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Ask, Failure};

/// Establishing a connection on one machine or in one data centre.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) struct Client {
    to: SocketAddr,
    keep: bool,
    limit: Duration,
    connection: Option<SendRequest<Channel<Bytes>>>,
}

impl Client {
    pub(super) fn new(to: SocketAddr, keep: bool, limit: Duration) -> Self {
        Self { to, keep, limit, connection: None }
    }

    /// The status of a complete answer.
    pub(super) async fn send(&mut self, ask: &Ask, traceparent: &str) -> Result<u16, Failure> {
        let outcome = timeout(self.limit, self.exchange(ask, traceparent)).await.unwrap_or(Err(Failure::Timeout));
        if outcome.is_err() || !self.keep {
            self.connection = None;
        }
        outcome
    }

    async fn exchange(&mut self, ask: &Ask, traceparent: &str) -> Result<u16, Failure> {
        let mut request = Request::builder().method(ask.method).uri(&ask.path);
        request = request.header("host", self.to.to_string()).header("traceparent", traceparent);
        request = request.header("connection", if self.keep { "keep-alive" } else { "close" });
        if let Some(token) = &ask.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !ask.body.is_empty() {
            request = request.header("content-type", "application/json").header("content-length", ask.body.len());
        }
        // A connection that the server ended between two requests carried nothing of this one.
        if let Some(open) = &mut self.connection
            && open.ready().await.is_err()
        {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(open) => open,
            none => none.insert(connect(self.to).await?),
        };
        let request = request.body(body(ask)).map_err(|_| Failure::Malformed)?;
        read(connection.send_request(request).await.map_err(|error| kind(&error, Failure::Closed))?).await
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
    let stream = match timeout(CONNECT, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(Failure::Refused),
        Ok(Err(_)) | Err(_) => return Err(Failure::NoConnection),
    };
    stream.set_nodelay(true).map_err(|_| Failure::Reset)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| kind(&error, Failure::Closed))?;
    // Ends with its sender; its error is the request's as well.
    tokio::spawn(connection);
    Ok(sender)
}

async fn read(answer: Response<Incoming>) -> Result<u16, Failure> {
    let status = answer.status().as_u16();
    answer.into_body().collect().await.map_err(|error| kind(&error, Failure::Cut))?;
    if status < 400 { Ok(status) } else { Err(Failure::Status(status)) }
}

fn kind(error: &hyper::Error, ended: Failure) -> Failure {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match cause {
        _ if error.is_parse() => Failure::Malformed,
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Failure::Reset,
        _ => ended,
    }
}
