//! How a container was set up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bollard::models::{ContainerInspectResponse, HostConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits, rights, and how it is tied to its host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// Bytes of memory it may have.
    pub memory_limit: Option<u64>,
    /// CPUs that it may use.
    pub cpu_quota: Option<f64>,
    /// Processes and threads that it may have.
    pub pids_limit: Option<u64>,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Where relative paths begin.
    pub working_directory: String,
    /// As configured; empty is root.
    pub user: String,
    /// Variables by name; values that are secret or look like it are hidden.
    pub environment: BTreeMap<String, String>,
    /// A health check is set.
    pub health_check: bool,
    /// The root file system can't be written.
    pub read_only: bool,
    /// All rights of root on the host.
    pub privileged: bool,
    /// Programs can't gain rights.
    pub no_new_privileges: bool,
    /// Capabilities beyond the engine's usual ones.
    pub capabilities: Vec<String>,
    /// What is mounted, as `source -> destination (rw|ro)`.
    pub mounts: Vec<Mount>,
    /// Networks, and the address in each.
    pub networks: BTreeMap<String, String>,
    /// Published ports, as `host address:port -> container port`.
    pub ports: Vec<String>,
    /// Where logs go.
    pub log_driver: String,
    /// Their size is bounded.
    pub log_rotation: bool,
    /// no, always, unless-stopped or on-failure.
    pub restart: String,
}

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mount {
    /// A path on the host or a volume's name.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    /// It can be written.
    pub writable: bool,
}

impl Configuration {
    /// Reads the engine's answer.
    pub fn read(inspect: &ContainerInspectResponse) -> Self {
        let config = inspect.config.clone().unwrap_or_default();
        let host = inspect.host_config.clone().unwrap_or_default();
        let tests = config.healthcheck.and_then(|check| check.test).unwrap_or_default();
        let environment = config.env.unwrap_or_default().into_iter();
        let logs = host.log_config.clone().unwrap_or_default();
        let log_driver = logs.typ.unwrap_or_default();
        let bounded = logs.config.unwrap_or_default().contains_key("max-size");
        let options = host.security_opt.clone().unwrap_or_default();
        let networks = inspect.network_settings.clone().and_then(|settings| settings.networks).unwrap_or_default();
        Self {
            memory_limit: positive(host.memory),
            cpu_quota: quota(&host),
            pids_limit: positive(host.pids_limit),
            command: inspect.path.iter().chain(inspect.args.iter().flatten()).cloned().collect(),
            working_directory: config.working_dir.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            environment: environment.filter_map(|line| split(&line)).collect(),
            health_check: tests.first().is_some_and(|kind| kind != "NONE"),
            read_only: host.readonly_rootfs == Some(true),
            privileged: host.privileged == Some(true),
            no_new_privileges: options
                .iter()
                .any(|option| option.strip_prefix("no-new-privileges").is_some_and(|value| !value.ends_with("false"))),
            capabilities: host.cap_add.clone().unwrap_or_default(),
            mounts: mounts(inspect),
            networks: networks.into_iter().map(|(name, end)| (name, end.ip_address.unwrap_or_default())).collect(),
            ports: ports(&host),
            // Only these two write files that grow for ever unless told otherwise; `local` has a bound of its own.
            log_rotation: bounded || log_driver != "json-file",
            log_driver,
            restart: host
                .restart_policy
                .and_then(|policy| policy.name)
                .map(|name| name.to_string())
                .unwrap_or_default(),
        }
    }

    /// Where it can be reached from its host: one address in each of its networks.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.networks.values().filter_map(|address| address.parse().ok())
    }

    /// Its processes have the user id 0, also the host's unless user namespaces are on.
    pub fn root(&self) -> bool {
        matches!(self.user.split(':').next(), None | Some("" | "0" | "root"))
    }
}

/// The engine writes 0 or -1 for none.
fn positive(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

/// `--cpus`, or the older pair of quota and period in microseconds.
fn quota(host: &HostConfig) -> Option<f64> {
    let period = positive(host.cpu_period).unwrap_or(100_000);
    let cpus = positive(host.nano_cpus).map(|nanos| nanos as f64 / 1e9);
    cpus.or_else(|| positive(host.cpu_quota).map(|quota| quota as f64 / period as f64))
}

fn split(line: &str) -> Option<(String, String)> {
    line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn mounts(inspect: &ContainerInspectResponse) -> Vec<Mount> {
    let mounts = inspect.mounts.iter().flatten().map(|mount| Mount {
        source: mount.name.clone().or(mount.source.clone()).unwrap_or_default(),
        destination: mount.destination.clone().unwrap_or_default(),
        writable: mount.rw == Some(true),
    });
    mounts.collect()
}

fn ports(host: &HostConfig) -> Vec<String> {
    let bindings = host.port_bindings.iter().flatten();
    let mut ports: Vec<_> = bindings
        .flat_map(|(port, bindings)| {
            bindings.iter().flatten().map(move |binding| {
                let address = binding.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
                format!("{address}:{} -> {port}", binding.host_port.as_deref().unwrap_or_default())
            })
        })
        .collect();
    ports.sort();
    ports
}
