//! `ops rollback`: back to the replicas before, or to any version that the history knows.

use std::time::Duration;

use super::Site;
use super::machine::{Order, Steps, Undecided};
use super::parts::Recipe;
use super::plan::{active, replica};
use crate::cli::Global;
use crate::exit::{Exit, Failure, Result};
use crate::gate::Settings;
use crate::output::Output;
use crate::state::journal::{Deploy, Phase, Strategy};

/// Arguments of `ops rollback`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The version to go back to [default: the one before].
    pub version: Option<String>,
    /// Show what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Rolls back.
pub async fn run(args: &Args, global: &Global, output: &Output) -> Result<Exit> {
    let site = Site::enter(global, output, "rollback").await?;
    let last = site.state.deploy()?.filter(|deploy| deploy.phase == Phase::Done && !deploy.old.is_empty());
    let before = last.as_ref().and_then(|deploy| deploy.old.first());
    let version = args.version.clone().or_else(|| before.map(|one| one.version.clone()));
    let version = version.ok_or_else(|| Failure::new(Exit::Precondition, "there is no version to go back to"))?;
    let slots = site.balancer.slots().await?;
    let seen = site.engine.containers(&slots).await?;
    let here = last.filter(|deploy| {
        let still = |name: &String| seen.iter().any(|one| one.name == *name);
        deploy.old.iter().all(|one| one.version == version && still(&one.container))
    });
    let Some(last) = here else { return redeploy(args, version, &site).await };
    let old = active(&slots, &seen);
    let new: Vec<_> = last
        .old
        .iter()
        .filter_map(|one| {
            let slot = slots.iter().find(|slot| slot.name == one.slot)?;
            seen.iter().find(|seen| seen.name == one.container).map(|seen| replica(slot, seen))
        })
        .collect();
    let id = format!("{:08x}", rand::random::<u32>());
    let image = new.first().map(|one| one.image.clone()).unwrap_or_default();
    let deploy = Deploy { old, new, ..Deploy::planned(id, Strategy::Rollback, image, version, last.timing) };
    if args.dry_run {
        output.show(&super::report::Plan::new(deploy, &[]))?;
        return Ok(Exit::Done);
    }
    let recipe = Recipe { deploy: deploy.id.clone(), like: String::new(), environment: Vec::new() };
    site.run(deploy, &order(recipe)).await
}

/// Containers that exist need no more than to be ready.
fn order(recipe: Recipe) -> Order {
    let canary = Steps {
        shares: Vec::new(),
        warm_up: Duration::ZERO,
        settings: Settings::default(),
        probe: None,
        inconclusive: Undecided::Rollback,
    };
    Order { recipe, ready: Duration::from_secs(60), smoke: Vec::new(), bake: Duration::ZERO, canary }
}

/// Its containers are gone, so its image is deployed anew.
async fn redeploy(args: &Args, version: String, site: &Site<'_>) -> Result<Exit> {
    let (records, _) = site.state.audited()?;
    let known = records.iter().rev().find(|record| record.version == version && record.phase == Phase::Done);
    let message = format!("version {version} isn't here any more and not in the history; deploy its image");
    let image = known.ok_or_else(|| Failure::new(Exit::Precondition, message))?.image.clone();
    if args.dry_run {
        let message = format!("would need a deploy of {image}: `ops deploy {image} --dry-run` shows it");
        return Err(Failure::new(Exit::Precondition, message));
    }
    super::begin(&super::args::Args::of(image)?, site).await
}
