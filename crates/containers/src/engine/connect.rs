//! Connects to the engine's socket and agrees on an API version.

use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};

use crate::exit::{Exit, OrExit, Result};

/// Where the engine is and how long one request to it may take.
#[derive(Debug, Clone, clap::Args)]
pub struct EngineArgs {
    /// The engine's address: unix:///path or tcp://host:port.
    #[arg(long, global = true, env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    pub docker_host: String,
    /// The longest that one request to the engine or the balancer may take.
    #[arg(long, global = true, default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// Connects, or fails with exit code 9 and a sentence that names the address.
pub async fn connect(args: &EngineArgs) -> Result<Docker> {
    let address = &args.docker_host;
    let unreachable = format!("can't reach the engine at {address} (is it running? see DOCKER_HOST)");
    let seconds = args.timeout.as_secs().max(1);
    let docker = match address.split_once("://") {
        Some(("unix", path)) => Docker::connect_with_unix(path, seconds, API_DEFAULT_VERSION),
        _ => Docker::connect_with_http(address, seconds, API_DEFAULT_VERSION),
    };
    // An engine refuses versions newer than its own.
    docker.or_exit(Exit::Unreachable, &unreachable)?.negotiate_version().await.or_exit(Exit::Unreachable, &unreachable)
}
