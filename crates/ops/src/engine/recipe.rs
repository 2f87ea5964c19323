//! New containers are like one that runs: its settings, mounts, limits and networks, with another image.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointIpamConfig, EndpointSettings, ImageConfig, NetworkingConfig,
};

use super::docker::{DEPLOY, SLOT, VERSION};
use crate::deploy::parts::{Recipe, Replica};

/// What the engine is to make: it takes one network at creation, the others are connected afterwards.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) body: ContainerCreateBody,
    pub(super) others: Vec<(String, EndpointSettings)>,
}

/// The container for a replica; without one, for a command, which stays out of the slots' network where it can.
pub(super) fn make(
    like: ContainerInspectResponse,
    old_image: &ImageConfig,
    recipe: &Recipe,
    target: Result<&Replica, (&str, &[&str])>,
) -> serde_json::Result<Made> {
    let names = own_names(&like);
    let config = serde_json::to_value(like.config.unwrap_or_default())?;
    let mut body: ContainerCreateBody = serde_json::from_value(config)?;
    // What came with the old image comes with the new one, or has gone.
    body.entrypoint = body.entrypoint.filter(|own| Some(own) != old_image.entrypoint.as_ref());
    body.cmd = body.cmd.filter(|own| Some(own) != old_image.cmd.as_ref());
    body.healthcheck = body.healthcheck.filter(|own| Some(own) != old_image.healthcheck.as_ref());
    body.user = body.user.filter(|own| Some(own) != old_image.user.as_ref());
    body.working_dir = body.working_dir.filter(|own| Some(own) != old_image.working_dir.as_ref());
    body.env = Some(environment(body.env.unwrap_or_default(), old_image, &recipe.environment));
    // Compose would otherwise take it for one of its own.
    let of_image = old_image.labels.clone().unwrap_or_default();
    let foreign = |name: &str| !name.starts_with("com.docker.") && !of_image.contains_key(name);
    let mut labels: HashMap<_, _> = body.labels.unwrap_or_default().into_iter().filter(|(k, _)| foreign(k)).collect();
    labels.retain(|name, _| !name.starts_with("ops."));
    body.hostname = None;
    let mut host = like.host_config.unwrap_or_default();

    let networks = like.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let fixed =
        |endpoint: &EndpointSettings| endpoint.ipam_config.as_ref().is_some_and(|ipam| ipam.ipv4_address.is_some());
    let mut endpoints: Vec<_> =
        networks.iter().map(|(name, endpoint)| (fixed(endpoint), name.clone(), endpoint)).collect();
    // The slots' network first, or last for a command.
    endpoints.sort_by_key(|(fixed, name, _)| (*fixed != target.is_ok(), name.clone()));
    if target.is_err() && endpoints.len() > 1 {
        endpoints.pop();
    }
    let mut address = match target {
        Ok(replica) => {
            labels.insert(DEPLOY.to_owned(), recipe.deploy.clone());
            labels.insert(SLOT.to_owned(), replica.slot.clone());
            labels.insert(VERSION.to_owned(), replica.version.clone());
            body.image = Some(replica.image.clone());
            Some(replica.address.ip().to_string())
        }
        Err((image, command)) => {
            labels.insert(DEPLOY.to_owned(), recipe.deploy.clone());
            body.image = Some(image.to_owned());
            body.cmd = Some(command.iter().map(ToString::to_string).collect());
            body.healthcheck = None;
            (host.restart_policy, host.auto_remove) = (None, None);
            None
        }
    };
    let mut connections = endpoints.into_iter().map(|(_, name, endpoint)| {
        let aliases = endpoint.aliases.clone().unwrap_or_default();
        let aliases = aliases.into_iter().filter(|alias| target.is_ok() && !names.contains(alias)).collect();
        // Only the first has the slot's address.
        let ipv4_address = address.take();
        let ipam_config = ipv4_address.map(|ip| EndpointIpamConfig { ipv4_address: Some(ip), ..Default::default() });
        (name, EndpointSettings { aliases: Some(aliases), ipam_config, ..Default::default() })
    });
    if let Some((name, endpoint)) = connections.next() {
        host.network_mode = Some(name.clone());
        body.networking_config = Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(name, endpoint)])) });
    }
    let others = connections.collect();
    body.labels = Some(labels);
    body.host_config = Some(host);
    Ok(Made { body, others })
}

/// The names in networks that are one container's own; the new one shares the others.
fn own_names(like: &ContainerInspectResponse) -> Vec<String> {
    let labels = like.config.as_ref().and_then(|config| config.labels.as_ref());
    let service = labels.and_then(|labels| labels.get("com.docker.compose.service")).cloned();
    let id = like.id.as_ref().map(|id| id.chars().take(12).collect());
    let name = like.name.as_ref().map(|name| name.trim_start_matches('/').to_owned());
    [service, id, name].into_iter().flatten().collect()
}

/// Variables with these changes, without those that came with the old image.
pub(super) fn environment(own: Vec<String>, old_image: &ImageConfig, changes: &[String]) -> Vec<String> {
    let name = |pair: &String| pair.split('=').next().unwrap_or_default().to_owned();
    let changed: Vec<_> = changes.iter().map(name).collect();
    let of_image = old_image.env.as_deref().unwrap_or_default();
    let kept = own.into_iter().filter(|pair| !of_image.contains(pair) && !changed.contains(&name(pair)));
    kept.chain(changes.iter().cloned()).collect()
}
