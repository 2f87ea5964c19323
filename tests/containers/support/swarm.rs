use std::net::SocketAddr;
use std::time::Duration;

use devkit::{Cleanup, free_port, wait_until};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::RwLockWriteGuard;

use super::docker::{docker, succeeded, unique};
use super::project::NAMES;
use super::{LIMIT, checkout, client, image};

/// What writes to the stack are authorized with.
pub const TOKEN: &str = "token-of-the-stack";

/// The stack of `docker/swarm/stack.yaml` on this engine; a swarm that wasn't there before ends with it.
pub struct Stack {
    pub name: String,
    pub address: SocketAddr,
    front: String,
    // Before the turn: fields are dropped in this order.
    _cleanup: Cleanup,
    _turn: RwLockWriteGuard<'static, ()>,
}

impl Stack {
    /// Deployed, with every replica healthy.
    pub async fn up() -> Self {
        // One swarm per engine, so one test at a time.
        let turn = NAMES.write().await;
        let ours = docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"]).await == "inactive";
        let name = unique();
        let address = (std::net::Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
        let front = format!("10.{}.{}.0/24", rand::random_range(128..192), rand::random_range(0..255));
        let cleanup = Cleanup::new(&removal(&name, ours)).unwrap();
        if ours {
            let here = ["--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377"];
            docker(&[&["swarm", "init"], &here[..]].concat()).await;
        }
        let stack = Self { name, address, front, _cleanup: cleanup, _turn: turn };
        let mut secrets = Command::new(checkout("docker/swarm/secrets.sh"));
        succeeded(secrets.arg(&stack.name).env("API_TOKEN", TOKEN), LIMIT).await;
        stack.deploy(image().await).await;
        let url = format!("http://{}/health/ready", stack.address);
        let client = client();
        let serves = async || client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200);
        wait_until("the balancer has a replica", LIMIT, serves).await.unwrap();
        for service in ["service", "balancer", "database", "redis"] {
            let healthy = async || stack.running(service).await == if service == "service" { 2 } else { 1 };
            wait_until(service, LIMIT, healthy).await.unwrap();
        }
        stack
    }

    /// `docker stack deploy` with this image.
    pub async fn deploy(&self, image: &str) {
        let mut command = Command::new("docker");
        command.args(["stack", "deploy", "--detach", "--resolve-image=never", "--compose-file"]);
        command.arg(checkout("docker/swarm/stack.yaml")).arg(&self.name);
        command.env("STACK", &self.name).env("SECRETS", &self.name).env("IMAGE", image);
        command.env("PUBLISH", self.address.port().to_string()).env("FRONT_NETWORK", &self.front);
        // Not every machine that runs tests allows more.
        succeeded(command.env("NOFILE", "20000"), LIMIT).await;
    }

    /// How many tasks of a service run, which means that they are healthy.
    pub async fn running(&self, service: &str) -> usize {
        let name = format!("name={}_{service}", self.name);
        let replicas = docker(&["service", "ls", "--filter", &name, "--format", "{{.Replicas}}"]).await;
        replicas.split('/').next().and_then(|running| running.parse().ok()).unwrap_or_default()
    }

    /// What Swarm says of the service's last update, and the image that it has now.
    pub async fn update(&self) -> (String, String) {
        let inspected = docker(&["service", "inspect", &format!("{}_service", self.name)]).await;
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        let state = inspected[0]["UpdateStatus"]["State"].as_str().unwrap_or("none");
        let image = inspected[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap();
        (state.to_owned(), image.to_owned())
    }

    /// Waits for an update's end; never fewer than two replicas run meanwhile.
    pub async fn wait_for_update(&self, state: &str) {
        let mut fewest = usize::MAX;
        let done = async || {
            fewest = fewest.min(self.running("service").await);
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.update().await.0 == state
        };
        wait_until(&format!("the update is {state}"), LIMIT * 3, done).await.unwrap();
        assert!(fewest >= 2, "{fewest} replicas at one time");
    }

    /// A container of a service.
    pub async fn container(&self, service: &str) -> Value {
        let label = format!("label=com.docker.swarm.service.name={}_{service}", self.name);
        let id = docker(&["ps", "--quiet", "--latest", "--filter", &label]).await;
        serde_json::from_str::<Value>(&docker(&["inspect", &id]).await).unwrap()[0].take()
    }
}

/// A shell command that takes the stack away, and the swarm where it is ours.
fn removal(name: &str, ours: bool) -> String {
    let leave = if ours { "docker swarm leave --force;" } else { "" };
    format!(
        "docker stack rm {name}; \
         here() {{ docker ps --all --quiet --filter label=com.docker.stack.namespace={name}; }}; \
         n=0; while [ $n -lt 60 ] && [ -n \"$(docker ps --quiet --filter label=com.docker.stack.namespace={name})\" ]; \
         do n=$((n + 1)); sleep 1; done; \
         docker secret rm $(docker secret ls --quiet --filter name={name}_); {leave} \
         docker rm --force $(here); docker volume rm {name}_database; docker image rm {name}:next {name}:unhealthy"
    )
}
