//! What deploys act on: containers of one engine, or services of a swarm.

use std::sync::Arc;
use std::time::Duration;

use super::swarm::Swarm;
use crate::balancer::Haproxy;
use crate::cli::Global;
use crate::deploy::parts::{Balancer, Engine};
use crate::exit::Result;

/// Arguments that choose it.
#[derive(Debug, Clone, clap::Args)]
pub struct TargetArgs {
    /// Containers of this engine, or services of the swarm that it manages.
    // Global, and `ops startup` has a `target` of its own.
    #[arg(
        id = "deploy_target",
        long = "target",
        value_name = "TARGET",
        global = true,
        value_enum,
        env = "OPS_TARGET",
        default_value = "docker"
    )]
    pub target: Target,
    /// Swarm: the stack whose services fill the slots.
    #[arg(long, global = true, env = "OPS_STACK", default_value = "plinth")]
    pub stack: String,
}

/// Where replicas run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// In containers that `ops` makes itself.
    Docker,
    /// In tasks of services.
    Swarm,
}

/// The longest that a command which only looks waits for a balancer: one that restarts is back by then.
pub const LOOK: Duration = Duration::from_secs(2);

/// Reaches what runs the replicas; nothing is asked of the balancer yet, which is waited for no longer than `patience`.
pub async fn connect(global: &Global, patience: Duration) -> Result<(Arc<dyn Engine>, Arc<dyn Balancer>)> {
    let docker = super::connect::connect(&global.engine).await?;
    let balancer = Haproxy::new(&global.balancer, global.engine.timeout.min(patience));
    match global.target.target {
        Target::Docker => Ok((Arc::new(docker), Arc::new(balancer))),
        Target::Swarm => {
            let proxy = global.balancer.balancer.with_file_name("replicas.sock");
            let swarm = Arc::new(Swarm::new(docker, &global.engine, balancer, proxy, global.target.stack.clone()));
            Ok((swarm.clone(), swarm))
        }
    }
}
