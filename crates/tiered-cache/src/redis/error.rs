//! Why Redis didn't do what it was asked.

use std::sync::Arc;

use redis::RedisError;
use tokio::time::error::Elapsed;

/// Why Redis didn't answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// There is no connection now, or the breaker is open; nothing was sent.
    #[error("no connection")]
    Unavailable,
    /// No answer in time. The command may still be carried out.
    #[error("timeout")]
    Timeout,
    /// The key holds something of another type; that says nothing about other keys.
    #[error("the key holds something of another type")]
    WrongType,
    /// Redis refused the command, or the connection broke.
    #[error("{0}")]
    Failed(Arc<str>),
}

impl From<RedisError> for RemoteError {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        let refusals = error.into_server_errors().unwrap_or_default();
        if refusals.iter().any(|(_, refusal)| refusal.code() == "WRONGTYPE") {
            return Self::WrongType;
        }
        let Some((_, refusal)) = refusals.first() else { return Self::Failed(text.into()) };
        // Redis' own words, but for where in a script they were said.
        let details = refusal.details().unwrap_or_default();
        let details = details.split_once(" script: ").map_or(details, |(words, _)| words);
        Self::Failed(format!("{} {details}", refusal.code()).into())
    }
}

impl From<Elapsed> for RemoteError {
    fn from(_: Elapsed) -> Self {
        Self::Timeout
    }
}
