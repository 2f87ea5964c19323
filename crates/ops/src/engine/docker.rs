//! Deploys' view of the engine.

use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use containers::container::secrets::Secrets;
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt};

use super::deaths::deaths;
use super::{http, recipe};
use crate::deploy::parts::{Ended, Engine, Image, Recipe, Replica, Seen, Slot, once};
use crate::engine::http::Answer;
use crate::exit::{Exit, Failure, OrExit, Result};

/// The deploy that made a container.
pub(super) const DEPLOY: &str = "ops.deploy";
/// The slot it was made for.
pub(super) const SLOT: &str = "ops.slot";
/// The version it runs.
pub(super) const VERSION: &str = "ops.version";
/// The same in an image.
pub(super) const IMAGE_VERSION: &str = "org.opencontainers.image.version";
/// The longest that pulling an image, or a command of it, may take.
pub(super) const LONG: Duration = Duration::from_secs(600);

#[async_trait]
impl Engine for Docker {
    async fn image(&self, name: &str) -> Result<Image> {
        let found = match self.inspect_image(name).await {
            // An id that isn't here is nowhere: registries know digests of something else.
            Err(Error::DockerResponseServerError { status_code: 404, .. }) if !name.starts_with("sha256:") => {
                let doing = format!("can't pull {name}");
                let (image, tag) = reference(name);
                let options = CreateImageOptionsBuilder::default().from_image(image).tag(tag).build();
                let pull = self.create_image(Some(options), None, None).try_for_each(async |_| Ok(()));
                let pulled = tokio::time::timeout(LONG, pull).await.or_exit(Exit::Precondition, &doing)?;
                pulled.map_err(|error| refused(&error, Exit::Precondition, &doing))?;
                self.inspect_image(name).await
            }
            found => found,
        };
        let found = found.map_err(|error| refused(&error, Exit::Precondition, &format!("can't look at {name}")))?;
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        let version = labels.get(IMAGE_VERSION).cloned().unwrap_or_else(|| reference(name).1.to_owned());
        let architecture = found.architecture.unwrap_or_default();
        let own = self.version().await.map_err(|error| refused(&error, Exit::Unreachable, "can't ask the engine"))?;
        let own = own.arch.unwrap_or_default();
        if architecture != own {
            let message = format!("{name} is made for {architecture}, but this engine runs {own}: wrong architecture");
            return Err(Failure::new(Exit::NeverReady, message));
        }
        Ok(Image { id: found.id.unwrap_or_default(), version, architecture })
    }

    async fn containers(&self, slots: &[Slot]) -> Result<Vec<Seen>> {
        let doing = "can't list containers";
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let all = self.list_containers(Some(options)).await.map_err(|e| refused(&e, Exit::Unreachable, doing))?;
        let refused = |error: Error| refused(&error, Exit::Unreachable, doing);
        let ours = all.iter().filter_map(|one| slot_of(one, slots).map(|slot| (one, slot)));
        // All at once: a rollback waits for the answers.
        let seen = try_join_all(ours.map(async |(summary, slot)| {
            match self.inspect_container(summary.id.as_deref().unwrap_or_default(), None).await {
                Ok(container) => {
                    let mut one = look(container, slot);
                    if one.restarts > 0 {
                        let (code, oom) = deaths(self, &one.name).await.map_err(refused)?;
                        (one.exit_code, one.out_of_memory) = (code, one.out_of_memory || oom);
                    }
                    Ok(Some(one))
                }
                // Removed since it was listed.
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
                Err(error) => Err(refused(error)),
            }
        }));
        Ok(seen.await?.into_iter().flatten().collect())
    }

    async fn create(&self, replica: &Replica, recipe: &Recipe) -> Result<()> {
        make(self, &replica.container, recipe, Ok(replica)).await
    }

    async fn start(&self, container: &str) -> Result<()> {
        let started = self.start_container(container, None).await;
        started.map_err(|error| refused(&error, Exit::NeverReady, &format!("{container} can't start")))
    }

    async fn stop(&self, container: &str, grace: Duration) -> Result<()> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let patient = self.clone().with_timeout(grace + Duration::from_secs(30));
        gone_is_fine(patient.stop_container(container, Some(options)).await, &format!("can't stop {container}"))
    }

    async fn remove(&self, container: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        gone_is_fine(self.remove_container(container, Some(options)).await, &format!("can't remove {container}"))
    }

    async fn log(&self, container: &str) -> Result<String> {
        let doing = format!("can't read the log of {container}");
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("8").build();
        let lines = self.logs(container, Some(options)).try_collect();
        // The client's own bound ends with the answer's head. What is unknown without a log is refused.
        let lines: Vec<LogOutput> = tokio::time::timeout(self.timeout(), lines)
            .await
            .unwrap_or_else(|_| Ok(Vec::new()))
            .map_err(|e| refused(&e, Exit::Unreachable, &doing))?;
        let inspected = self.inspect_container(container, None).await;
        let inspected = inspected.map_err(|error| refused(&error, Exit::Unreachable, &doing))?;
        let text: String = lines.iter().map(ToString::to_string).collect();
        Ok(Secrets::of(&inspected).hide(text.trim()))
    }

    async fn once(&self, image: &str, recipe: &Recipe, command: &[&str]) -> Result<Ended> {
        let name = once(recipe);
        make(self, &name, recipe, Err((image, command))).await?;
        let run = async {
            Engine::start(self, &name).await?;
            let code = match self.wait_container(&name, None).next().await {
                Some(Ok(ended)) => ended.status_code,
                Some(Err(Error::DockerContainerWaitError { code, .. })) => code,
                Some(Err(error)) => return Err(refused(&error, Exit::Unreachable, &format!("can't wait for {name}"))),
                None => 0,
            };
            Ok(Ended { code, output: Engine::log(self, &name).await? })
        };
        let ended = tokio::time::timeout(LONG, run).await;
        Engine::remove(self, &name).await?;
        ended.or_exit(Exit::Precondition, format!("{image} {} didn't end", command.join(" ")))?
    }

    async fn get(&self, replica: &Replica, path: &str) -> std::result::Result<Answer, String> {
        http::get(replica.address, path).await
    }
}

async fn make(
    docker: &Docker,
    name: &str,
    recipe: &Recipe,
    target: std::result::Result<&Replica, (&str, &[&str])>,
) -> Result<()> {
    let doing = format!("can't make {name} like {}", recipe.like);
    let refused = |error: Error| refused(&error, Exit::Precondition, &doing);
    let like = docker.inspect_container(&recipe.like, None).await.map_err(refused)?;
    let image = docker.inspect_image(like.image.as_deref().unwrap_or_default()).await.map_err(refused)?;
    let made = recipe::make(like, &image.config.unwrap_or_default(), recipe, target);
    let made = made.or_exit(Exit::Precondition, &doing)?;
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    match docker.create_container(Some(options), made.body).await {
        Err(Error::DockerResponseServerError { status_code: 409, .. }) if target.is_ok() => {}
        created => drop(created.map_err(refused)?),
    }
    for (network, endpoint) in made.others {
        let request = NetworkConnectRequest { container: name.to_owned(), endpoint_config: Some(endpoint) };
        docker.connect_network(&network, request).await.map_err(refused)?;
    }
    Ok(())
}

/// The engine's own words, with exit code 9 when they are none.
pub(super) fn refused(error: &Error, exit: Exit, doing: &str) -> Failure {
    match error {
        Error::DockerResponseServerError { message, .. } => Failure::new(exit, format!("{doing}: {message}")),
        error => Failure::new(Exit::Unreachable, format!("{doing}: {error}")),
    }
}

fn gone_is_fine(result: std::result::Result<(), Error>, doing: &str) -> Result<()> {
    match result {
        // 304: it has stopped before; 409: somebody removes it.
        Err(Error::DockerResponseServerError { status_code: 304 | 404 | 409, .. }) => Ok(()),
        result => result.map_err(|error| refused(&error, Exit::OperatorNeeded, doing)),
    }
}

/// Name and tag; a digest is left where it is.
pub(super) fn reference(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((image, tag)) if !tag.contains('/') && !image.contains('@') => (image, tag),
        _ if name.contains('@') => (name, ""),
        _ => (name, "latest"),
    }
}

fn slot_of(container: &ContainerSummary, slots: &[Slot]) -> Option<String> {
    let networks = container.network_settings.as_ref()?.networks.as_ref()?;
    let is = |ip: Option<&String>, slot: &Slot| ip.is_some_and(|ip| *ip == slot.address.ip().to_string());
    let at = |slot: &&Slot| {
        networks.values().any(|endpoint| {
            let fixed = endpoint.ipam_config.as_ref().and_then(|ipam| ipam.ipv4_address.as_ref());
            is(fixed, slot) || is(endpoint.ip_address.as_ref(), slot)
        })
    };
    slots.iter().find(at).map(|slot| slot.name.clone())
}

fn look(container: ContainerInspectResponse, slot: String) -> Seen {
    let state = container.state.unwrap_or_default();
    let config = container.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let image = config.image.unwrap_or_default();
    let version = [VERSION, IMAGE_VERSION].iter().find_map(|name| labels.get(*name).cloned());
    Seen {
        name: container.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        slot,
        deploy: labels.get(DEPLOY).cloned(),
        version: version.unwrap_or_else(|| reference(&image).1.to_owned()),
        image,
        image_id: container.image.unwrap_or_default(),
        running: state.running.unwrap_or(false) && !state.restarting.unwrap_or(false),
        restarts: container.restart_count.unwrap_or(0),
        out_of_memory: state.oom_killed.unwrap_or(false),
        exit_code: state.exit_code.unwrap_or(0),
        error: state.error.unwrap_or_default(),
    }
}
