//! Redis' errors, in its own words.

use redis::RedisError;
use tiered_cache::RemoteError;

pub(crate) fn failed(error: RedisError) -> RemoteError {
    let text = error.to_string();
    let refusals = error.into_server_errors().unwrap_or_default();
    if refusals.iter().any(|(_, refusal)| refusal.code() == "WRONGTYPE") {
        return RemoteError::WrongType;
    }
    let Some((_, refusal)) = refusals.first() else { return RemoteError::Failed(text.into()) };
    // Without where in a script they were said.
    let details = refusal.details().unwrap_or_default();
    let details = details.split_once(" script: ").map_or(details, |(words, _)| words);
    RemoteError::Failed(format!("{} {details}", refusal.code()).into())
}
