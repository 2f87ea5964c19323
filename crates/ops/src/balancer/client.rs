//! One question to the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::exit::{Exit, Failure, Result};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    timeout: Duration,
}

impl Socket {
    pub(super) fn new(path: &Path, timeout: Duration) -> Self {
        Self { path: path.to_owned(), timeout }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sends commands, separated by semicolons, and reads all they answer. While the balancer restarts nobody listens:
    /// so connecting is tried until the time is over. Commands that were sent aren't sent again.
    pub(super) async fn ask(&self, commands: &str) -> Result<String> {
        let unreachable = |why: String| {
            let path = self.path.display();
            Failure::new(Exit::Unreachable, format!("can't reach the balancer at {path} (see --balancer): {why}"))
        };
        let end = Instant::now() + self.timeout;
        let mut stream = loop {
            match UnixStream::connect(&self.path).await {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= end => return Err(unreachable(error.to_string())),
                Err(_) => sleep(RETRY).await,
            }
        };
        let exchange = async {
            stream.write_all(commands.as_bytes()).await?;
            stream.write_all(b"\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        match timeout(self.timeout, exchange).await {
            Ok(answer) => answer.map_err(|error| unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("no answer within {:?}", self.timeout))),
        }
    }
}
