//! Containers made only to look into an image, or to see it start; removed afterwards.

use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};

use crate::engine::failure;
use crate::exit::{Exit, Failure, Result};

const PAUSE: Duration = Duration::from_millis(200);

/// None where `target` is a container; else the image of that name.
pub(super) async fn image(docker: &Docker, target: &str) -> Result<Option<String>> {
    match docker.inspect_container(target, None).await {
        Ok(_) => return Ok(None),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
        Err(error) => return Err(failure(&error, &format!("can't examine {target}"))),
    }
    match docker.inspect_image(target).await {
        Ok(_) => Ok(Some(target.to_owned())),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
            let message = format!("there is no container and no image {target} on this engine");
            Err(Failure::new(Exit::Precondition, message))
        }
        Err(error) => Err(failure(&error, &format!("can't examine {target}"))),
    }
}

pub(super) async fn create(docker: &Docker, image: &str) -> Result<String> {
    let name = format!("ops-startup-{:08x}", rand::random::<u32>());
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let body = ContainerCreateBody { image: Some(image.to_owned()), ..ContainerCreateBody::default() };
    let made = docker.create_container(Some(options), body).await;
    Ok(made.map_err(|error| failure(&error, &format!("can't make a container of {image}")))?.id)
}

/// Starts it, and waits until it ended, is healthy or not, or `watch` is over.
pub(super) async fn start(docker: &Docker, id: &str, watch: Duration) -> Result<()> {
    match docker.start_container(id, None).await {
        Ok(()) => {}
        // The engine's reason is kept in the container's state, where `examine` finds it.
        Err(Error::DockerResponseServerError { .. }) => return Ok(()),
        Err(error) => return Err(failure(&error, &format!("can't start {id}"))),
    }
    let settled = async {
        loop {
            let inspect = docker.inspect_container(id, None).await;
            let state = inspect.map_err(|error| failure(&error, &format!("can't examine {id}")))?.state;
            let state = state.unwrap_or_default();
            let health = state.health.and_then(|health| health.status).map(|status| status.to_string());
            if state.running != Some(true) || matches!(health.as_deref(), Some("healthy" | "unhealthy")) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(watch, settled).await.unwrap_or(Ok(()))
}

pub(super) async fn remove(docker: &Docker, id: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    let removed = docker.remove_container(id, Some(options)).await;
    removed.map_err(|error| failure(&error, &format!("can't remove the container {id}")))
}
