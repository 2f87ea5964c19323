//! How a container ended before the engine started it again: its state has forgotten that, the engine's events haven't.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::EventMessage;
use containers::engine::events;

use crate::state::journal::since_1970;

/// Events that are older say nothing about a new container.
const SECONDS: f64 = 3600.0;

/// The last exit code, and whether it ever ran out of memory.
pub(super) async fn deaths(docker: &Docker, id: &str) -> Result<(i64, bool), Error> {
    let filters = HashMap::from([("container", vec![id]), ("event", vec!["die", "oom"])]);
    let events = events(docker, since_1970().as_secs_f64(), SECONDS, &filters).await?;
    let code = |event: &EventMessage| event.actor.as_ref()?.attributes.as_ref()?.get("exitCode")?.parse().ok();
    let out_of_memory = events.iter().any(|event| event.action.as_deref() == Some("oom"));
    Ok((events.iter().rev().find_map(code).unwrap_or(0), out_of_memory))
}
