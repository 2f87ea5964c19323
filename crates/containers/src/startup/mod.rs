//! `ops startup`: why a container did not start, the likely cause first.

pub mod causes;
pub mod collect;
pub mod exit_code;
pub mod program;
mod report;
mod trial;

use std::time::Duration;

use bollard::Docker;
use causes::judge;
pub use report::Startup;

use crate::engine::connect::{EngineArgs, connect};
use crate::exit::{Exit, Result};
use crate::findings::worst;
use crate::output::Output;

/// What `ops startup` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A container's name or id, else an image.
    pub target: String,
    /// Start it and watch; an image in a container that is removed afterwards.
    #[arg(long)]
    pub run: bool,
    /// How long it is watched at most.
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub watch: Duration,
}

/// Looks at the container, or at one made from the image.
pub async fn run(args: &Args, engine: &EngineArgs, output: &Output) -> Result<Exit> {
    let docker = connect(engine).await?;
    let Some(image) = trial::image(&docker, &args.target).await? else {
        if args.run {
            trial::start(&docker, &args.target, args.watch).await?;
        }
        return show(&docker, &args.target, output).await;
    };
    let id = trial::create(&docker, &image).await?;
    let shown = tokio::select! {
        shown = async {
            if args.run {
                trial::start(&docker, &id, args.watch).await?;
            }
            show(&docker, &id, output).await
        } => shown,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    };
    trial::remove(&docker, &id).await?;
    shown
}

async fn show(docker: &Docker, id: &str, output: &Output) -> Result<Exit> {
    let evidence = collect::examine(docker, id).await?;
    let causes = judge(&evidence);
    let exit = worst(&causes).exit();
    output.show(&Startup::new(evidence, causes))?;
    Ok(exit)
}
