use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use devkit::Cleanup;
use devkit::load::{Load, Traffic};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use super::docker::{docker, succeeded};
use super::image;
use super::load::{get, mixed};

/// The system of `compose.yaml` under a name and with a network of its own, and a state folder for `ops`.
pub struct Stack {
    pub name: String,
    pub folder: TempDir,
    pub socket: PathBuf,
    settings: Vec<(String, String)>,
    _cleanup: Cleanup,
}

impl Stack {
    /// Two blue replicas behind a balancer, all healthy; `settings` are variables that `compose.yaml` reads.
    pub async fn up(settings: &[(&str, &str)]) -> Self {
        let name = format!("ops-test-{:08x}", rand::random::<u32>());
        let (second, third) = (rand::random_range(128..192), rand::random_range(0..255));
        let mut all = vec![
            ("IMAGE".to_owned(), image().await),
            ("SLOT_NETWORK".to_owned(), format!("10.{second}.{third}")),
            ("PUBLISH".to_owned(), "127.0.0.1:0".to_owned()),
            // Not every machine that runs tests allows more.
            ("NOFILE".to_owned(), "20000".to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        // What ops makes is no part of the project, but in its network.
        let ours = format!("docker ps --all --quiet --filter network={name}_front");
        let down = format!("docker compose --project-name {name} down --volumes --timeout 1");
        let cleanup = Cleanup::new(&format!("docker rm --force --volumes $({ours}); {down}; {down}")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut stack = Self { name, folder, socket: PathBuf::new(), settings: all, _cleanup: cleanup };
        stack.compose(&["up", "--wait", "--no-build"]).await;
        let volume = docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", &format!("{}_balancer", stack.name)]).await;
        stack.socket = Path::new(&volume).join("admin.sock");
        stack
    }

    pub async fn compose(&self, args: &[&str]) -> String {
        let mut command = Command::new("docker");
        command.args(["compose", "--progress", "quiet", "--project-name", &self.name]).args(args);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        succeeded(command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")), "").await
    }

    /// Tells the balancer something by hand.
    pub async fn tell_balancer(&self, command: &str) {
        let mut socket = UnixStream::connect(&self.socket).await.unwrap();
        socket.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.trim(), "", "{command}");
    }

    /// The address of a slot by its last number.
    pub fn slot(&self, number: u8) -> String {
        let network = self.settings.iter().find(|(name, _)| name == "SLOT_NETWORK").unwrap();
        format!("{}.{number}", network.1)
    }

    pub async fn address(&self) -> SocketAddr {
        self.compose(&["port", "balancer", "8080"]).await.parse().unwrap()
    }

    /// Clients that read and write through the balancer without a pause, over kept and new connections.
    pub async fn load(&self, pause: Duration) -> Load {
        let cat = ["--entrypoint", "cat", "secrets", "/secrets/service/api_token"];
        let token = self.compose(&[&["run", "--rm", "--no-deps", "-T", "--user", "1001"], &cat[..]].concat()).await;
        mixed(self.address().await, token, pause).await
    }

    /// Clients that ask for values which must be computed, each a new one.
    pub async fn computing_load(&self) -> Load {
        let run: u32 = rand::random();
        let asks = Arc::new(move |number| get(format!("/api/data/{run}-{number}")));
        let (to, limit) = (self.address().await, Duration::from_secs(30));
        let pause = Duration::from_millis(20);
        Load::start(&Traffic { to, kept: 12, fresh: 0, pause, limit, count: u64::MAX, sampled: 0, asks })
    }

    /// Versions in the slots that take traffic.
    pub async fn serving(&self) -> Vec<String> {
        let status = self.json(&["status"]).await;
        let takes = |slot: &&serde_json::Value| slot["share"].as_f64().unwrap() > 0.0;
        let text = |slot: &serde_json::Value| {
            format!("{}:{}", slot["slot"].as_str().unwrap(), slot["version"].as_str().unwrap())
        };
        status["slots"].as_array().unwrap().iter().filter(takes).map(text).collect()
    }

    /// Names of running containers in the slots' network, without the balancer.
    pub async fn running(&self) -> Vec<String> {
        let filter = format!("network={}_front", self.name);
        let names = docker(&["ps", "--format", "{{.Names}}", "--filter", &filter]).await;
        names.lines().filter(|name| !name.contains("-balancer-")).map(str::to_owned).collect()
    }
}
