//! One question to the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::exit::{Exit, Failure, Result};

/// Between two attempts.
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

    /// Sends commands, separated by semicolons, the last a `show`, and reads all they answer. While the balancer restarts nobody listens, and
    /// one that is killed answers nothing or a part: so the whole is tried until the time is over. Commands say how
    /// something is to be, so saying it twice does no harm.
    pub(super) async fn ask(&self, commands: &str) -> Result<String> {
        let end = Instant::now() + self.timeout;
        loop {
            let why = match timeout_at(end, self.exchange(commands)).await {
                // The last command always shows something, and each answer ends with an empty line.
                Ok(Ok(answer)) if !answer.trim().is_empty() && answer.ends_with("\n\n") => return Ok(answer),
                Ok(Ok(_)) => "it ended before it had answered".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {:?}", self.timeout),
            };
            if Instant::now() + RETRY >= end {
                let path = self.path.display();
                let message = format!("can't reach the balancer at {path} (see --balancer): {why}");
                return Err(Failure::new(Exit::Unreachable, message));
            }
            sleep(RETRY).await;
        }
    }

    async fn exchange(&self, commands: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(&self.path).await?;
        stream.write_all(format!("{commands}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}
