//! Deploys' view of a swarm: slots that take their address from one name in DNS are the tasks of one service, which has
//! this name as its alias. Swarm's DNS names healthy tasks, so that one that is replaced is found without us.

mod api;
mod balancer;
mod group;
pub(crate) mod spec;
pub(crate) mod tasks;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{ContainerConfig, ContainerInspectResponse, TaskState};
use bollard::query_parameters::LogsOptionsBuilder;
use containers::container::secrets::Secrets;
use futures_util::TryStreamExt;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::connect::EngineArgs;
use super::docker::{LONG, refused};
use super::http::{self, Answer};
use crate::balancer::Haproxy;
use crate::deploy::parts::{Balancer as _, Ended, Engine, Image, Recipe, Replica, Seen, Slot, once};
use crate::exit::{Exit, Failure, OrExit, Result};
use api::Api;
use group::Group;

/// Between two looks at tasks.
const POLL: Duration = Duration::from_millis(200);
/// Logs come from whatever node has the task; one that doesn't answer isn't waited for.
const LOGS: Duration = Duration::from_secs(5);

/// The manager of a swarm, and the balancer that sends requests to one of its stacks.
#[derive(Debug)]
pub struct Swarm {
    docker: Docker,
    api: Api,
    balancer: Haproxy,
    /// Where the balancer listens for requests to one replica: it is in the replicas' network, and we aren't.
    proxy: PathBuf,
    stack: String,
    /// Replicas are made and started at once, but they share services.
    turn: Mutex<()>,
}

impl Swarm {
    /// Nothing is asked yet.
    pub fn new(docker: Docker, args: &EngineArgs, balancer: Haproxy, proxy: PathBuf, stack: String) -> Self {
        let api = Api { address: args.docker_host.clone(), limit: args.timeout };
        Self { docker, api, balancer, proxy, stack, turn: Mutex::new(()) }
    }

    /// The service that has, or had, this replica.
    async fn group_of(&self, container: &str) -> Result<Option<(Group, usize)>> {
        let groups = self.groups(&self.balancer.slots().await?).await?;
        Ok(groups.into_iter().find_map(|group| group.position(container).map(|at| (group, at))))
    }

    /// Of the service that a replica belongs to, or that has this name itself.
    async fn like(&self, name: &str) -> Result<Value> {
        if let Some((group, _)) = self.group_of(name).await? {
            return Ok(group.spec);
        }
        Ok(self.api.service(name).await?["Spec"].take())
    }

    /// The last lines of a service, or why its task has none.
    async fn lines(&self, service: &str, spec: &Value) -> Result<String> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("8").build();
        let mut text = String::new();
        let read = self.docker.service_logs(service, Some(options)).try_for_each(|line: LogOutput| {
            text.push_str(&line.to_string());
            std::future::ready(Ok(()))
        });
        // What came until then is shown.
        if let Ok(Err(error)) = timeout(LOGS, read).await {
            return Err(refused(&error, Exit::Unreachable, &format!("can't read the log of {service}")));
        }
        let config = ContainerConfig { env: Some(spec::variables(spec)), ..ContainerConfig::default() };
        let given = ContainerInspectResponse { config: Some(config), ..ContainerInspectResponse::default() };
        Ok(Secrets::of(&given).hide(text.trim()))
    }

    async fn job_ended(&self, id: &str, spec: &Value) -> Result<Ended> {
        loop {
            if let Some(task) = self.api.tasks(&[id]).await?.first() {
                let status = task.status.clone().unwrap_or_default();
                match status.state {
                    Some(TaskState::COMPLETE | TaskState::FAILED) => {
                        return Ok(Ended { code: tasks::exit_code(task), output: self.lines(id, spec).await? });
                    }
                    Some(TaskState::REJECTED | TaskState::ORPHANED | TaskState::SHUTDOWN) => {
                        let why = status.err.or(status.message).unwrap_or_default();
                        return Err(Failure::new(Exit::Precondition, format!("{} can't run: {why}", spec["Name"])));
                    }
                    _ => {}
                }
            }
            sleep(POLL).await;
        }
    }
}

#[async_trait]
impl Engine for Swarm {
    /// Nodes share no ids of images, so it goes by its name.
    async fn image(&self, name: &str) -> Result<Image> {
        Ok(Image { id: name.to_owned(), ..self.docker.image(name).await? })
    }

    async fn containers(&self, slots: &[Slot]) -> Result<Vec<Seen>> {
        let groups = self.groups(slots).await?;
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let tasks = self.api.tasks(&groups.iter().map(|group| group.id.as_str()).collect::<Vec<_>>()).await?;
        let mut seen: Vec<_> = groups.iter().flat_map(|group| group.seen(&tasks)).collect();
        for (one, container) in seen.iter_mut().filter_map(|(one, ended)| Some((one, ended.take()?))) {
            // Swarm doesn't say it; the engine does, where the task was on this node.
            let found = self.docker.inspect_container(&container, None).await;
            one.out_of_memory =
                found.is_ok_and(|found| found.state.is_some_and(|state| state.oom_killed == Some(true)));
        }
        Ok(seen.into_iter().map(|(one, _)| one).collect())
    }

    async fn create(&self, replica: &Replica, recipe: &Recipe) -> Result<()> {
        let slots = self.balancer.slots().await?;
        let host = slots.iter().find(|slot| slot.name == replica.slot).and_then(|slot| slot.host.clone());
        let host = host.ok_or_else(|| {
            let message = format!("{} has no name in DNS: this balancer isn't one of a swarm's stack", replica.slot);
            Failure::new(Exit::Precondition, message)
        })?;
        let _turn = self.turn.lock().await;
        let made = self.groups(&slots).await?;
        if made.iter().any(|group| group.host == host && group.deploy() == Some(&recipe.deploy)) {
            return Ok(());
        }
        let like = self.like(&recipe.like).await?;
        let hosts: Vec<_> = slots.iter().filter_map(|slot| slot.host.as_deref()).collect();
        let spec = spec::of_replicas(&like, &hosts, &self.stack, &host, replica, recipe);
        self.api.create(&spec).await.map(drop)
    }

    async fn start(&self, container: &str) -> Result<()> {
        let _turn = self.turn.lock().await;
        let gone = || Failure::new(Exit::NeverReady, format!("{container} is gone"));
        let (group, at) = self.group_of(container).await?.ok_or_else(gone)?;
        self.api.change(&group.id, Exit::NeverReady, |spec| spec::start(spec, at + 1)).await
    }

    /// Stops its whole side: replicas of one service are never stopped apart.
    async fn stop(&self, container: &str, grace: Duration) -> Result<()> {
        let Some((group, _)) = self.group_of(container).await? else { return Ok(()) };
        let stopped = {
            let _turn = self.turn.lock().await;
            self.api.change(&group.id, Exit::OperatorNeeded, spec::stop).await
        };
        if stopped.is_err() && self.group_of(container).await?.is_none() {
            return Ok(());
        }
        stopped?;
        // The service's own grace period counts, which may be longer.
        let limit = grace.max(spec::grace(&group.spec)) + Duration::from_secs(30);
        let end = Instant::now() + limit;
        while self.api.tasks(&[&group.id]).await?.iter().any(tasks::runs) {
            if Instant::now() >= end {
                return Err(Failure::new(Exit::OperatorNeeded, format!("{container} still runs after {limit:?}")));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    async fn remove(&self, container: &str) -> Result<()> {
        let found = self.group_of(container).await?;
        let service = found.map_or_else(|| container.to_owned(), |(group, _)| group.id);
        self.api.remove(&service).await
    }

    async fn log(&self, container: &str) -> Result<String> {
        let Some((group, at)) = self.group_of(container).await? else { return Ok(String::new()) };
        // Swarm has no log of a task that isn't healthy yet; the engine has, where the task is on this node.
        for id in tasks::containers(&self.api.tasks(&[&group.id]).await?, at + 1) {
            match self.docker.log(&id).await {
                Ok(log) if !log.is_empty() => return Ok(log),
                _ => {}
            }
        }
        self.lines(&group.id, &group.spec).await
    }

    async fn once(&self, image: &str, recipe: &Recipe, command: &[&str]) -> Result<Ended> {
        let name = once(recipe);
        let slots = self.balancer.slots().await?;
        let hosts: Vec<_> = slots.iter().filter_map(|slot| slot.host.as_deref()).collect();
        let spec = spec::of_job(&self.like(&recipe.like).await?, &hosts, &name, image, recipe, command);
        let id = self.api.create(&spec).await?;
        let ended = timeout(LONG, self.job_ended(&id, &spec)).await;
        Engine::remove(self, &name).await?;
        ended.or_exit(Exit::Precondition, format!("{image} {} didn't end", command.join(" ")))?
    }

    /// From whichever task the slot has.
    async fn get(&self, replica: &Replica, path: &str) -> std::result::Result<Answer, String> {
        let slots = self.balancer.slots().await.map_err(|failure| failure.message)?;
        let slot = slots.iter().find(|slot| slot.name == replica.slot);
        let address = slot.map(|slot| slot.address.ip()).filter(|address| !address.is_unspecified());
        let address = address.ok_or("no healthy task has this slot yet (`docker service ps` says why)")?;
        http::get_through(&self.proxy, address, path).await
    }
}
