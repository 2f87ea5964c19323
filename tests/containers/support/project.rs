use std::net::SocketAddr;
use std::time::Duration;

use devkit::Cleanup;
use tokio::process::Command;
use tokio::sync::{RwLock, RwLockReadGuard};

use super::docker::{finished, succeeded, unique};
use super::image;

/// Everything of `compose.yaml` up to health, on a machine that is busy with other tests.
const UP: Duration = Duration::from_secs(300);

/// Held by whoever needs Docker's name service as it is; leaving a swarm empties it for every running container, so that
/// only who holds this alone may do it.
pub static NAMES: RwLock<()> = RwLock::const_new(());

/// The system of `compose.yaml` under a name and with a network of its own.
pub struct Project {
    pub name: String,
    settings: Vec<(String, String)>,
    _cleanup: Cleanup,
    _names: RwLockReadGuard<'static, ()>,
}

impl Project {
    /// Nothing runs yet; `settings` are variables that `compose.yaml` reads.
    pub async fn new(settings: &[(&str, &str)]) -> Self {
        let name = unique();
        let (second, third) = (rand::random_range(64..128), rand::random_range(0..255));
        let mut all = vec![
            ("IMAGE".to_owned(), image().await.to_owned()),
            ("SLOT_NETWORK".to_owned(), format!("10.{second}.{third}")),
            ("PUBLISH".to_owned(), "127.0.0.1:0".to_owned()),
            // Not every machine that runs tests allows more.
            ("NOFILE".to_owned(), "20000".to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        // By labels, so that no file is needed: the checkout may be gone by then.
        let cleanup =
            Cleanup::new(&format!("docker compose --project-name {name} down --volumes --timeout 1")).unwrap();
        Self { name, settings: all, _cleanup: cleanup, _names: NAMES.read().await }
    }

    /// Changes a setting; the next `up` makes the containers that it concerns anew.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// All services up and healthy.
    pub async fn up(settings: &[(&str, &str)]) -> Self {
        let project = Self::new(settings).await;
        project.start().await;
        project
    }

    /// Brings up what isn't, with the settings as they are now.
    pub async fn start(&self) {
        let up = finished(&mut self.command(&["up", "--wait", "--no-build"]), UP).await;
        if !up.status.success() {
            let logs = self.compose(&["logs", "--no-color", "--tail=10"]).await;
            panic!("{}\n{logs}", String::from_utf8_lossy(&up.stderr));
        }
    }

    /// `docker compose` in this project; what it wrote to stdout.
    pub async fn compose(&self, args: &[&str]) -> String {
        succeeded(&mut self.command(args), UP).await
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["compose", "--progress", "quiet", "--project-name", &self.name]).args(args);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }

    /// Where the balancer is published.
    pub async fn address(&self) -> SocketAddr {
        self.compose(&["port", "balancer", "8080"]).await.parse().unwrap()
    }

    /// The id of a service's container.
    pub async fn container(&self, service: &str) -> String {
        self.compose(&["ps", "--all", "--quiet", service]).await
    }

    /// The token that may write.
    pub async fn token(&self) -> String {
        let cat = ["--entrypoint", "cat", "secrets", "/secrets/service/api_token"];
        self.compose(&[&["run", "--rm", "--no-deps", "-T", "--user", "1001"], &cat[..]].concat()).await
    }
}
