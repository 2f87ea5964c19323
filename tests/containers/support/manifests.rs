//! What would be deployed: Kubernetes overlays and the Swarm stack as their own programs render them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::docker::succeeded;

/// No cluster is asked.
const RENDER: Duration = Duration::from_secs(60);

/// A path in the checkout.
pub fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The documents of a YAML text, as values: types of their own would hide unknown fields.
pub fn yaml(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The objects that a folder of docker/kubernetes comes to.
pub async fn overlay(name: &str) -> Overlay {
    let program = devkit::find("kubectl").expect("kubectl: https://kubernetes.io/docs/tasks/tools/");
    let folder = checkout("docker/kubernetes").join(name);
    let text = succeeded(Command::new(program).arg("kustomize").arg(folder), RENDER).await;
    Overlay { name: name.to_owned(), objects: yaml(&text) }
}

pub struct Overlay {
    pub name: String,
    pub objects: Vec<Value>,
}

impl Overlay {
    pub async fn all() -> [Self; 2] {
        [overlay("overlays/dev").await, overlay("overlays/prod").await]
    }

    /// The only object of a kind.
    pub fn one(&self, kind: &str) -> &Value {
        let mut found = self.objects.iter().filter(|object| object["kind"] == kind);
        let first = found.next().unwrap_or_else(|| panic!("no {kind} in {}", self.name));
        assert!(found.next().is_none(), "more than one {kind} in {}", self.name);
        first
    }

    /// The pod of the service, or of the migration.
    pub fn pod(&self, kind: &str) -> &Value {
        &self.one(kind)["spec"]["template"]
    }

    /// Everything that the service's container finds in its environment.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let map = self.one("ConfigMap");
        let container = &self.pod("Deployment")["spec"]["containers"][0];
        assert_eq!(container["envFrom"][0]["configMapRef"]["name"], map["metadata"]["name"]);
        let shared = map["data"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value)));
        let own = container["env"].as_array().unwrap().iter().map(|pair| (text(&pair["name"]), text(&pair["value"])));
        shared.chain(own).collect()
    }
}

/// The stack with the defaults of its variables, of these files in docker/swarm.
pub async fn stack(files: &[&str]) -> Value {
    let program = devkit::find("docker").expect("docker: https://docs.docker.com/engine/install/");
    let mut command = Command::new(program);
    command.args(["stack", "config"]).env_clear();
    for file in files {
        command.arg("--compose-file").arg(checkout("docker/swarm").join(file));
    }
    yaml(&succeeded(&mut command, RENDER).await).remove(0)
}

/// A text that must be one.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} isn't a text")).to_owned()
}

/// A duration as the service and Docker write it.
pub fn duration(value: &str) -> Duration {
    humantime::parse_duration(value).unwrap()
}
