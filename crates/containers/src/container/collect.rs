//! Asks the engine for everything that facts are made of, about many containers at once.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::StreamExt;

use super::facts::{Facts, shortened};
use super::load::Load;
use super::sample::seconds;
use super::secrets::Secrets;
use super::{service, stream};
use crate::engine::{events, failure};
use crate::exit::{Exit, Failure, OrExit, Result};

/// Each holds a connection to the engine while its window lasts.
const AT_ONCE: usize = 256;
/// How far back the engine is asked for events.
const HISTORY: f64 = 86_400.0;

/// The containers meant, by id: those named, else all with the label, else all.
pub async fn choose(docker: &Docker, names: &[String], label: Option<&str>) -> Result<Vec<String>> {
    if !names.is_empty() {
        return Ok(names.to_vec());
    }
    let filters = HashMap::from_iter(label.map(|label| ("label", vec![label.to_owned()])));
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let all = docker.list_containers(Some(options)).await.map_err(|error| failure(&error, "can't list containers"))?;
    match label {
        // A label that is spelt wrongly must not look like good health.
        Some(label) if all.is_empty() => {
            Err(Failure::new(Exit::Precondition, format!("there is no container with the label {label}")))
        }
        _ => Ok(all.into_iter().filter_map(|container| container.id).collect()),
    }
}

/// The engine's clock, in seconds since 1970: with it, nothing depends on ours.
pub async fn now(docker: &Docker) -> Result<f64> {
    let info = docker.info().await.map_err(|error| failure(&error, "can't ask the engine"))?;
    info.system_time
        .as_deref()
        .and_then(seconds)
        .ok_or_else(|| Failure::new(Exit::OperatorNeeded, "the engine doesn't tell the time"))
}

/// Facts about each container, in no order; an error for each that vanished or couldn't be examined.
pub async fn examine(docker: &Docker, ids: &[String], window: Duration) -> Result<Vec<(String, Result<Facts>)>> {
    let now = now(docker).await?;
    let history = History::ask(docker, now).await?;
    let each = ids.iter().map(|id| async {
        let facts = gather(docker, id, window, now, &history).await;
        (id.clone(), facts)
    });
    Ok(futures_util::stream::iter(each).buffer_unordered(AT_ONCE).collect().await)
}

/// Facts about one container.
pub async fn one(docker: &Docker, id: &str, window: Duration) -> Result<Facts> {
    let now = now(docker).await?;
    gather(docker, id, window, now, &History::ask(docker, now).await?).await
}

/// One container's facts, without its secrets.
async fn gather(docker: &Docker, id: &str, window: Duration, now: f64, history: &History) -> Result<Facts> {
    let asked = format!("can't examine {id}");
    let inspect = docker.inspect_container(id, None).await.map_err(|error| failure(&error, &asked))?;
    let mut facts = Facts::read(&inspect, now);
    history.tell(inspect.id.as_deref().unwrap_or_default(), &mut facts);
    if facts.state.status == "running" && !window.is_zero() {
        let (pair, service) =
            tokio::join!(stream::pair(docker, id, window), service::ask(&inspect, &facts.configuration, window));
        let pair = pair?;
        if pair.is_none() {
            // It stopped meanwhile, or is gone: its state says more now than before.
            let inspect = docker.inspect_container(id, None).await.map_err(|error| failure(&error, &asked))?;
            facts.state = Facts::read(&inspect, now).state;
            if facts.state.status == "removing" {
                return Err(Failure::new(Exit::Precondition, format!("{asked}: it is being removed")));
            }
        }
        facts.load = pair.and_then(|(first, last)| Load::between(&first, &last));
        facts.service = service;
    }
    let mut scrubbed = Secrets::of(&inspect).scrub(&facts).or_exit(Exit::OperatorNeeded, "can't take secrets out")?;
    // Only now: a secret cut in half would no longer be known.
    for probe in &mut scrubbed.state.probes {
        probe.output = shortened(&probe.output, 300);
    }
    // What it is called isn't secret, and often contains what a careless password is.
    Ok(Facts { name: facts.name, id: facts.id, image: facts.image, ..scrubbed })
}

/// What the engine remembers of all containers' kills.
struct History(HashMap<String, Vec<EventMessage>>);

impl History {
    async fn ask(docker: &Docker, now: f64) -> Result<Self> {
        let filters = HashMap::from([("type", vec!["container"]), ("event", vec!["oom", "kill"])]);
        let events = events(docker, now, HISTORY, &filters).await;
        let events = events.map_err(|error| failure(&error, "can't read events"))?;
        let mut history: HashMap<_, Vec<_>> = HashMap::new();
        for event in events {
            let id = event.actor.as_ref().and_then(|actor| actor.id.clone()).unwrap_or_default();
            history.entry(id).or_default().push(event);
        }
        Ok(Self(history))
    }

    fn tell(&self, id: &str, facts: &mut Facts) {
        for event in self.0.get(id).into_iter().flatten() {
            let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
            match event.action.as_deref() {
                Some("oom") => facts.state.oom_events += 1,
                _ => facts.state.signals.extend(attributes.and_then(|all| all.get("signal").cloned())),
            }
        }
    }
}
