//! How a container ended before the engine started it again: its state has forgotten that, the engine's events haven't.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::TryStreamExt;

use crate::state::journal::since_1970;

/// Events that are older say nothing about a new container.
const MEMORY: Duration = Duration::from_secs(3600);

/// The last exit code, and whether it ever ran out of memory.
pub(super) async fn deaths(docker: &Docker, id: &str) -> Result<(i64, bool), Error> {
    // To the nanosecond: it may have ended within this second.
    let time = |at: Duration| format!("{}.{:09}", at.as_secs(), at.subsec_nanos());
    let now = since_1970();
    let filters = HashMap::from([("container", vec![id]), ("event", vec!["die", "oom"])]);
    let options = EventsOptionsBuilder::default().since(&time(now.saturating_sub(MEMORY))).until(&time(now));
    let events = docker.events(Some(options.filters(&filters).build())).try_collect();
    // The client's own bound ends with the answer's head.
    let events = tokio::time::timeout(docker.timeout(), events).await;
    let events: Vec<EventMessage> = events.unwrap_or(Err(Error::RequestTimeoutError))?;
    let code = |event: &EventMessage| event.actor.as_ref()?.attributes.as_ref()?.get("exitCode")?.parse().ok();
    let out_of_memory = events.iter().any(|event| event.action.as_deref() == Some("oom"));
    Ok((events.iter().rev().find_map(code).unwrap_or(0), out_of_memory))
}
