use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use devkit::load::Load;
use devkit::{Cleanup, free_port, wait_until};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

use super::docker::{docker, succeeded};
use super::load::mixed;
use super::{LIMIT, image};

/// What writes to the stack are authorized with.
const TOKEN: &str = "token-of-the-stack";

static TURN: Mutex<()> = Mutex::const_new(());

/// The stack of `stack.yaml` and `stack.ops.yaml`; a swarm that wasn't there before ends with it.
pub struct Stack {
    pub name: String,
    /// Of `ops`.
    pub folder: TempDir,
    pub socket: PathBuf,
    address: SocketAddr,
    // Before the turn: fields are dropped in this order.
    _cleanup: Cleanup,
    _balancer: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Stack {
    /// Three blue replicas behind a balancer, all healthy.
    pub async fn up() -> Self {
        let turn = TURN.lock().await;
        let ours = docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"]).await == "inactive";
        let name = format!("ops-swarm-{:08x}", rand::random::<u32>());
        let cleanup = Cleanup::new(&removal(&name, ours)).unwrap();
        if ours {
            let here = ["--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377"];
            docker(&[&["swarm", "init"], &here[..]].concat()).await;
        }
        let balancer = tempfile::tempdir().unwrap();
        // HAProxy's user; the folder above is closed to everybody else.
        std::os::unix::fs::chown(balancer.path(), Some(99), Some(99)).unwrap();
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
        let stack = Self {
            socket: balancer.path().join("admin.sock"),
            folder: tempfile::tempdir().unwrap(),
            name,
            address,
            _cleanup: cleanup,
            _balancer: balancer,
            _turn: turn,
        };
        stack.deploy().await;
        let all = async || stack.serving().await.len() == 3;
        wait_until("three replicas take traffic", LIMIT, all).await.unwrap();
        stack
    }

    async fn deploy(&self) {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docker/swarm");
        let mut secrets = Command::new(checkout.join("secrets.sh"));
        succeeded(secrets.arg(&self.name).env("API_TOKEN", TOKEN), "").await;
        let mut command = Command::new("docker");
        command.args(["stack", "deploy", "--detach", "--resolve-image=never"]);
        for file in ["stack.yaml", "stack.ops.yaml"] {
            command.arg("--compose-file").arg(checkout.join(file));
        }
        let front = format!("10.{}.{}.0/24", rand::random_range(128..192), rand::random_range(0..255));
        command.arg(&self.name).env("STACK", &self.name).env("SECRETS", &self.name).env("IMAGE", image().await);
        command.env("PUBLISH", self.address.port().to_string()).env("FRONT_NETWORK", front);
        command.env("BALANCER_FOLDER", self.socket.parent().unwrap()).env("DRAIN_DELAY", "1s");
        // Not every machine that runs tests allows more.
        succeeded(command.env("NOFILE", "20000"), "").await;
    }

    /// With these arguments, on this swarm.
    pub fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["--target", "swarm", "--stack", &self.name], args].concat()
    }

    /// Versions in the slots that take traffic and whose check passes.
    pub async fn serving(&self) -> Vec<String> {
        let ended = self.ops(&self.args(&["--json", "status", "--timeout", "2s"])).await;
        let status: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        let takes = |slot: &&Value| slot["share"].as_f64().unwrap() > 0.0 && slot["up"] == true;
        let text =
            |slot: &Value| format!("{}:{}", slot["slot"].as_str().unwrap(), slot["version"].as_str().unwrap_or("-"));
        status["slots"].as_array().into_iter().flatten().filter(takes).map(text).collect()
    }

    /// Names of the services that have replicas for the slots, without the stack's name, with how many.
    pub async fn services(&self) -> Vec<(String, u64)> {
        let filter = format!("label=com.docker.stack.namespace={}", self.name);
        let ids = docker(&["service", "ls", "--quiet", "--filter", &filter]).await;
        let mut services = Vec::new();
        for id in ids.lines() {
            let spec = self.spec(id).await;
            if spec["Labels"]["color"].is_string() {
                let name = spec["Name"].as_str().unwrap().trim_start_matches(&format!("{}_", self.name)).to_owned();
                services.push((name, spec["Mode"]["Replicated"]["Replicas"].as_u64().unwrap()));
            }
        }
        services.sort();
        services
    }

    /// What Swarm was told of a service.
    pub async fn spec(&self, service: &str) -> Value {
        let inspected = docker(&["service", "inspect", service, "--format", "{{json .Spec}}"]).await;
        serde_json::from_str(&inspected).unwrap()
    }

    /// Clients that read and write through the balancer, over kept and new connections.
    pub async fn load(&self, pause: Duration) -> Load {
        mixed(self.address, TOKEN.to_owned(), pause).await
    }
}

/// A shell command that takes the stack away, and the swarm where it is ours.
fn removal(name: &str, ours: bool) -> String {
    let leave = if ours { "docker swarm leave --force;" } else { "" };
    format!(
        "docker stack rm {name}; \
         here() {{ docker ps --all --quiet --filter label=com.docker.swarm.service.name --filter name={name}_; }}; \
         n=0; while [ $n -lt 60 ] && [ -n \"$(docker ps --quiet --filter name={name}_)\" ]; \
         do n=$((n + 1)); sleep 1; done; \
         docker secret rm $(docker secret ls --quiet --filter name={name}_); {leave} \
         docker rm --force $(here); docker volume rm {name}_database"
    )
}
