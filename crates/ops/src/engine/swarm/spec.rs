//! What services are made of: a new one is like one that is there, with another image.

use std::time::Duration;

use bollard::models::ImageConfig;
use serde_json::{Value, json};

use crate::deploy::parts::{Recipe, Replica, color};
use crate::engine::docker::DEPLOY;
use crate::engine::recipe::environment;

/// The stack that a service belongs to.
pub(super) const NAMESPACE: &str = "com.docker.stack.namespace";
/// The version that it runs.
pub(super) const VERSION: &str = "version";
/// How many replicas it had before it was stopped.
const REPLICAS: &str = "ops.replicas";
/// A second as Swarm writes it.
const SECOND: u64 = 1_000_000_000;

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Its names in networks, without its own.
pub(super) fn aliases(spec: &Value) -> Vec<String> {
    spec["TaskTemplate"]["Networks"].as_array().into_iter().flatten().flat_map(|one| texts(&one["Aliases"])).collect()
}

pub(super) fn label<'a>(spec: &'a Value, name: &str) -> Option<&'a str> {
    spec["Labels"][name].as_str()
}

pub(super) fn image(spec: &Value) -> String {
    spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned()
}

pub(super) fn variables(spec: &Value) -> Vec<String> {
    texts(&spec["TaskTemplate"]["ContainerSpec"]["Env"])
}

/// Between SIGTERM and SIGKILL.
pub(super) fn grace(spec: &Value) -> Duration {
    Duration::from_nanos(spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"].as_u64().unwrap_or(0))
}

/// Replicas that Swarm is to keep running.
pub(super) fn replicas(spec: &Value) -> usize {
    spec["Mode"]["Replicated"]["Replicas"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

/// Replicas that it had when it was stopped.
pub(super) fn stopped(spec: &Value) -> usize {
    label(spec, REPLICAS).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// At least so many replicas.
pub(super) fn start(spec: &mut Value, count: usize) {
    spec["Mode"] = json!({"Replicated": {"Replicas": replicas(spec).max(count)}});
}

/// None, but the number is kept.
pub(super) fn stop(spec: &mut Value) {
    let count = replicas(spec);
    if count > 0 {
        spec["Labels"][REPLICAS] = count.to_string().into();
    }
    spec["Mode"] = json!({"Replicated": {"Replicas": 0}});
}

/// Says whether the balancer sends requests there.
pub(super) fn mark(spec: &mut Value, active: bool) {
    spec["Labels"]["active"] = active.to_string().into();
}

/// A service for the slots of `host`, without a replica yet.
pub fn of_replicas(like: &Value, hosts: &[&str], stack: &str, host: &str, replica: &Replica, recipe: &Recipe) -> Value {
    let mut labels = like["Labels"].as_object().cloned().unwrap_or_default();
    labels.retain(|name, _| !name.starts_with("ops."));
    let mut template = template(like, &replica.image, recipe);
    let other = |alias: String| if hosts.contains(&alias.as_str()) { host.to_owned() } else { alias };
    for network in template["Networks"].as_array_mut().into_iter().flatten() {
        network["Aliases"] = texts(&network["Aliases"]).into_iter().map(other).collect();
    }
    template["ContainerSpec"]["Healthcheck"]["Timeout"] = json!(10 * SECOND);
    // For whoever changes it by hand; we make a service anew instead.
    let update = |failure: &str, order: &Value| {
        let mut update =
            json!({"Parallelism": 1, "Delay": 10 * SECOND, "Monitor": 30 * SECOND, "FailureAction": failure});
        if order.is_string() {
            update["Order"] = order.clone();
        }
        update
    };
    let mut spec = json!({
        "Name": format!("{stack}_{host}"),
        "Labels": labels,
        "TaskTemplate": template,
        "Mode": {"Replicated": {"Replicas": 0}},
        "UpdateConfig": update("rollback", &like["UpdateConfig"]["Order"]),
        "RollbackConfig": update("pause", &like["RollbackConfig"]["Order"]),
        // Addresses of tasks instead of a virtual one: the balancer sees each replica, and no kernel IPVS is needed.
        "EndpointSpec": {"Mode": "dnsrr"},
    });
    let own = [
        ("color", color(&replica.slot)),
        (VERSION, &replica.version),
        (DEPLOY, &recipe.deploy),
        (NAMESPACE, stack),
        ("com.docker.stack.image", &replica.image),
    ];
    for (name, value) in own {
        spec["Labels"][name] = value.into();
    }
    mark(&mut spec, false);
    spec
}

/// A job that runs a command once, outside the slots' network.
pub fn of_job(like: &Value, hosts: &[&str], name: &str, image: &str, recipe: &Recipe, command: &[&str]) -> Value {
    let mut template = template(like, image, recipe);
    let slots = |network: &&Value| texts(&network["Aliases"]).iter().any(|alias| hosts.contains(&alias.as_str()));
    let networks = like["TaskTemplate"]["Networks"].as_array().into_iter().flatten();
    let targets = networks.filter(|network| !slots(network)).map(|network| json!({"Target": network["Target"]}));
    template["Networks"] = targets.collect();
    template["RestartPolicy"] = json!({"Condition": "none"});
    template["ContainerSpec"]["Args"] = json!(command);
    template["ContainerSpec"]["Healthcheck"] = json!({"Test": ["NONE"]});
    json!({
        "Name": name,
        "Labels": {DEPLOY: recipe.deploy},
        "TaskTemplate": template,
        "Mode": {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}},
    })
}

fn template(like: &Value, image: &str, recipe: &Recipe) -> Value {
    let mut template = like["TaskTemplate"].clone();
    template["ContainerSpec"]["Image"] = image.into();
    let env = environment(variables(like), &ImageConfig::default(), &recipe.environment);
    template["ContainerSpec"]["Env"] = json!(env);
    template
}
