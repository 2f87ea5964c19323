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
        let text: Arc<str> = error.to_string().into();
        let refusals = error.into_server_errors();
        let is_wrong_type = refusals.iter().flat_map(|all| all.iter()).any(|(_, error)| error.code() == "WRONGTYPE");
        if is_wrong_type { Self::WrongType } else { Self::Failed(text) }
    }
}

impl From<Elapsed> for RemoteError {
    fn from(_: Elapsed) -> Self {
        Self::Timeout
    }
}
