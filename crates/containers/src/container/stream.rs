//! Samples as the engine takes them, one a second, for as long as the container runs.

use std::pin::pin;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::{Stream, StreamExt};

use super::sample::Sample;
use crate::engine::failure;
use crate::exit::Result;

/// The engine takes a sample every second; one that comes so much later doesn't come any more.
const SILENCE: Duration = Duration::from_secs(15);

/// A container's samples. It ends when the container stops, is removed, or the engine goes silent.
pub fn samples(docker: &Docker, id: &str) -> impl Stream<Item = Result<Sample>> + use<> {
    let options = StatsOptionsBuilder::default().stream(true).build();
    let stats = Box::pin(docker.stats(id, Some(options)));
    futures_util::stream::unfold(stats, |mut stats| async move {
        let next = tokio::time::timeout(SILENCE, stats.next()).await.ok()??;
        match next {
            Ok(stats_now) => Sample::read(&stats_now).map(|sample| (Ok(sample), stats)),
            Err(error) => Some((Err(failure(&error, "can't read its counters")), stats)),
        }
    })
}

/// The first sample and one at least `window` later; what there is if the container stops before.
pub async fn pair(docker: &Docker, id: &str, window: Duration) -> Result<Option<(Sample, Sample)>> {
    let mut samples = pin!(samples(docker, id));
    let Some(first) = samples.next().await.transpose()? else { return Ok(None) };
    while let Some(sample) = samples.next().await.transpose()? {
        if sample.at - first.at >= window.as_secs_f64() - 0.05 {
            return Ok(Some((first, sample)));
        }
    }
    Ok(None)
}
