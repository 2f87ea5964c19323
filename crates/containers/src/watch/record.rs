//! Records a container's samples and events until the time is over, somebody interrupts, or it is removed.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep, sleep_until};

use crate::container::sample::Sample;
use crate::container::stream::samples;
use crate::engine::failure;
use crate::exit::{Exit, Failure, Result};

/// So many samples are kept: a day of one a second.
const MOST: usize = 86_400;
/// Between asking whether a container that stopped runs again.
const PAUSE: Duration = Duration::from_secs(1);

/// Something that was seen.
#[derive(Debug)]
pub enum Seen<'a> {
    /// Counters.
    Sample(&'a Sample),
    /// The engine's event: start, die, oom, or `health_status: …`, with its time in seconds since 1970.
    Event(&'a str, f64),
}

/// What a recording gives.
#[derive(Debug, Default)]
pub struct Recording {
    /// In order.
    pub samples: Vec<Sample>,
    /// Ctrl-C ended it.
    pub interrupted: bool,
    /// The container was removed.
    pub gone: bool,
}

type Samples = Pin<Box<dyn Stream<Item = Result<Sample>> + Send>>;

/// Tells `seen` as it happens. A container that is started again goes on being recorded.
pub async fn record(
    docker: &Docker,
    id: &str,
    length: Duration,
    every: Duration,
    mut seen: impl FnMut(Seen<'_>),
) -> Result<Recording> {
    let mut recording = Recording::default();
    let filters = HashMap::from([("container", vec![id]), ("type", vec!["container"])]);
    let mut events = Box::pin(docker.events(Some(EventsOptionsBuilder::default().filters(&filters).build())));
    let mut stream: Samples = Box::pin(samples(docker, id));
    let end = sleep_until(Instant::now() + length);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = tokio::signal::ctrl_c() => {
                recording.interrupted = true;
                break;
            }
            event = events.next() => match event {
                Some(Ok(event)) if action(&event) == "destroy" => {
                    recording.gone = true;
                    break;
                }
                Some(Ok(event)) => seen(Seen::Event(action(&event), time(&event))),
                Some(Err(error)) => return Err(failure(&error, "can't follow the engine's events")),
                None => return Err(Failure::new(Exit::Unreachable, "the engine closed its stream of events")),
            },
            sample = stream.next() => match sample.transpose() {
                Ok(Some(sample)) => {
                    let due = recording.samples.last().is_none_or(|last| sample.at - last.at >= every.as_secs_f64() - 0.5);
                    if due && recording.samples.len() < MOST {
                        seen(Seen::Sample(&sample));
                        recording.samples.push(sample);
                    }
                }
                // It stopped: ask again, as it may be started again.
                Ok(None) => {
                    let id = id.to_owned();
                    let docker = docker.clone();
                    let later = async move {
                        sleep(PAUSE).await;
                        samples(&docker, &id)
                    };
                    stream = Box::pin(futures_util::stream::once(later).flatten());
                }
                Err(failure) if failure.exit == Exit::Precondition => {
                    recording.gone = true;
                    break;
                }
                Err(failure) => return Err(failure),
            },
        }
    }
    Ok(recording)
}

fn action(event: &EventMessage) -> &str {
    event.action.as_deref().unwrap_or_default()
}

fn time(event: &EventMessage) -> f64 {
    event.time_nano.map_or(0.0, |nanos| nanos as f64 / 1e9)
}
