//! What the engine remembers.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::TryStreamExt;

/// Its events of the last `back` seconds before `now` (in seconds since 1970), oldest first; it keeps a few hundred.
///
/// # Errors
/// Those of the engine, and a timeout when it doesn't tell all of them in time.
pub async fn events(
    docker: &Docker,
    now: f64,
    back: f64,
    filters: &HashMap<&str, Vec<&str>>,
) -> Result<Vec<EventMessage>, Error> {
    // With fractions: what happened within this second counts, too.
    let (since, until) = (format!("{:.6}", now - back), format!("{now:.6}"));
    let options = EventsOptionsBuilder::default().since(&since).until(&until).filters(filters).build();
    // The client's own bound ends with the answer's head.
    let told = tokio::time::timeout(docker.timeout(), docker.events(Some(options)).try_collect()).await;
    told.unwrap_or(Err(Error::RequestTimeoutError))
}
