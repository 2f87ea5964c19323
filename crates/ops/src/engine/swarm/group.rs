//! A service whose tasks fill slots.

use bollard::models::Task;
use serde_json::Value;

use super::{Swarm, spec, tasks};
use crate::deploy::parts::{Seen, Slot};
use crate::engine::docker::{DEPLOY, IMAGE_VERSION, reference};
use crate::exit::Result;

/// One service of the stack, with the slots that its alias in DNS fills.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) spec: Value,
    slots: Vec<Slot>,
    version: String,
}

impl Swarm {
    pub(super) async fn groups(&self, slots: &[Slot]) -> Result<Vec<Group>> {
        let mut groups = Vec::new();
        for mut service in self.api.services(&self.stack).await? {
            let spec = service["Spec"].take();
            let aliases = spec::aliases(&spec);
            let is = |slot: &&Slot| slot.host.as_ref().is_some_and(|host| aliases.contains(host));
            let slots: Vec<_> = slots.iter().filter(is).cloned().collect();
            let Some(host) = slots.first().and_then(|slot| slot.host.clone()) else { continue };
            let version = match spec::label(&spec, spec::VERSION) {
                Some(version) => version.to_owned(),
                None => self.version(&spec::image(&spec)).await,
            };
            groups.push(Group {
                id: service["ID"].as_str().unwrap_or_default().to_owned(),
                host,
                spec,
                slots,
                version,
            });
        }
        Ok(groups)
    }

    /// Of replicas that we didn't make: what the image says, or its tag.
    async fn version(&self, image: &str) -> String {
        let found = self.docker.inspect_image(image).await.ok().and_then(|image| image.config?.labels);
        let version = found.and_then(|labels| labels.get(IMAGE_VERSION).cloned());
        version.unwrap_or_else(|| reference(image.split('@').next().unwrap_or_default()).1.to_owned())
    }
}

impl Group {
    /// The deploy that made it.
    pub(super) fn deploy(&self) -> Option<&str> {
        spec::label(&self.spec, DEPLOY)
    }

    /// Whether the balancer sends requests here.
    pub(super) fn active(&self) -> bool {
        self.slots.iter().any(Slot::takes_traffic)
    }

    fn name(&self, slot: &Slot) -> String {
        let made_by = self.deploy().or(self.spec["Name"].as_str()).unwrap_or_default();
        format!("{}-{made_by}", slot.name)
    }

    /// Which of its replicas has this name.
    pub(super) fn position(&self, container: &str) -> Option<usize> {
        self.slots.iter().position(|slot| self.name(slot) == container)
    }

    /// Its replicas, also stopped ones, and the last container of those that died.
    pub(super) fn seen(&self, tasks: &[Task]) -> Vec<(Seen, Option<String>)> {
        let wanted = spec::replicas(&self.spec);
        let known = wanted.max(spec::stopped(&self.spec));
        let numbered = self.slots.iter().zip(1..).take(known);
        numbered
            .map(|(slot, number)| {
                let mine = |task: &&Task| task.service_id.as_ref() == Some(&self.id) && tasks::is(task, number);
                let deaths = tasks::deaths(tasks.iter().filter(mine));
                let seen = Seen {
                    name: self.name(slot),
                    slot: slot.name.clone(),
                    deploy: self.deploy().map(str::to_owned),
                    image: spec::image(&self.spec),
                    image_id: spec::image(&self.spec),
                    version: self.version.clone(),
                    // Swarm keeps it running; what dies is counted.
                    running: number <= wanted && deaths.error.is_empty(),
                    restarts: deaths.restarts,
                    exit_code: deaths.exit_code,
                    error: deaths.error,
                    out_of_memory: false,
                };
                (seen, deaths.container)
            })
            .collect()
    }
}
