//! `ops rollback`: back to the replicas before, or to any version that the history knows.

use std::time::Duration;

use super::Site;
use super::args::Args as DeployArgs;
use super::machine::{Order, Steps, Undecided};
use super::migrations::taken_since;
use super::parts::{Balancer, Engine, Recipe, Replica};
use super::plan::{active, replica};
use super::report::Plan;
use crate::cli::Global;
use crate::engine::target::{LOOK, connect};
use crate::exit::{Exit, Failure, Result};
use crate::gate::Settings;
use crate::output::Output;
use crate::state::State;
use crate::state::audit::Record;
use crate::state::journal::{Deploy, Phase, Strategy};

/// Arguments of `ops rollback`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The version to go back to [default: the one before].
    pub version: Option<String>,
    /// Go back although a migration since has taken something away that the version may need.
    #[arg(long)]
    pub allow_contract: bool,
    /// Show what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// What a rollback comes to.
#[derive(Debug)]
pub enum Way {
    /// The replicas are still here.
    Wake(Box<Deploy>),
    /// They are gone, so their image is deployed anew.
    Redeploy(Box<DeployArgs>),
}

/// Rolls back.
pub async fn run(args: &Args, global: &Global, output: &Output) -> Result<Exit> {
    if args.dry_run {
        return dry_run(args, global, output).await;
    }
    let site = Site::enter(global, output, "rollback").await?;
    match way(args, &*site.engine, &*site.balancer, &site.state).await? {
        Way::Wake(deploy) => {
            let recipe = Recipe { deploy: deploy.id.clone(), like: String::new(), environment: Vec::new() };
            site.run(*deploy, &order(recipe)).await
        }
        Way::Redeploy(mut args) => {
            args.image = same_image(&*site.engine, &args).await?;
            super::begin(&args, &site).await
        }
    }
}

/// Neither locks nor changes anything.
async fn dry_run(args: &Args, global: &Global, output: &Output) -> Result<Exit> {
    let (engine, balancer) = connect(global, LOOK).await?;
    let state = State::new(&global.state_dir);
    if let Some(Deploy { id, phase, .. }) = state.deploy()?.filter(|deploy| !deploy.phase.is_final()) {
        let message =
            format!("deploy {id} is {} or was interrupted there; `ops reconcile` ends it first", phase.name());
        return Err(Failure::new(Exit::Precondition, message));
    }
    match way(args, &*engine, &*balancer, &state).await? {
        Way::Wake(deploy) => output.show(&Plan::new(*deploy, &[])).map(|()| Exit::Done),
        Way::Redeploy(args) => super::show_plan(&args, &*engine, &*balancer, output).await,
    }
}

/// To this version, else to the one before.
pub async fn way(args: &Args, engine: &dyn Engine, balancer: &dyn Balancer, state: &State) -> Result<Way> {
    let last = state.deploy()?;
    let kept = last.as_ref().map_or(&[][..], |deploy| &deploy.kept);
    let version = args.version.as_deref().or_else(|| kept.first().map(|one| one.version.as_str()));
    let version = version.ok_or_else(|| Failure::new(Exit::Precondition, "there is no version to go back to"))?;
    let records = state.audited()?.0;
    let image_id = kept.iter().find(|one| one.version == version).map(|one| one.image_id.as_str());
    let image_id = image_id.or_else(|| last_done(version, &records).map(|record| record.image_id.as_str()));
    let taken = taken_since(version, image_id.unwrap_or_default(), &records);
    if !taken.is_empty() && !args.allow_contract {
        let (message, names) = ("may need what was taken from the database since", taken.join(", "));
        let message = format!("version {version} {message}: {names}; go forward instead, or say --allow-contract");
        return Err(Failure::new(Exit::Precondition, message));
    }
    let slots = balancer.slots().await?;
    let seen = engine.containers(&slots).await?;
    let here = |one: &Replica| {
        let slot = slots.iter().find(|slot| slot.name == one.slot)?;
        let seen = seen.iter().find(|seen| seen.name == one.container && one.version == version)?;
        Some(replica(slot, seen))
    };
    let new: Vec<_> = kept.iter().map_while(here).collect();
    let (Some(last), Some(first), true) = (&last, new.first(), new.len() == kept.len()) else {
        return redeploy(version, &records).map(|args| Way::Redeploy(Box::new(args)));
    };
    // They would be drained as the old ones as soon as they were opened as the new ones.
    if let Some(slot) = slots.iter().find(|slot| slot.takes_traffic() && new.iter().any(|one| one.slot == slot.name)) {
        let message = format!("version {version} already takes traffic, in {}; see `ops status`", slot.name);
        return Err(Failure::new(Exit::Precondition, message));
    }
    let (id, image) = (format!("{:08x}", rand::random::<u32>()), first.image.clone());
    let planned = Deploy::planned(id, Strategy::Rollback, image, version.to_owned(), last.timing.clone());
    Ok(Way::Wake(Box::new(Deploy { old: active(&slots, &seen), new, ..planned })))
}

/// Containers that exist need no more than to be ready.
pub fn order(recipe: Recipe) -> Order {
    let canary = Steps {
        shares: Vec::new(),
        warm_up: Duration::ZERO,
        settings: Settings::default(),
        probe: None,
        inconclusive: Undecided::Rollback,
    };
    Order { recipe, ready: Duration::from_secs(60), smoke: Vec::new(), bake: Duration::ZERO, canary }
}

fn last_done<'a>(version: &str, records: &'a [Record]) -> Option<&'a Record> {
    records.iter().rev().find(|record| record.version == version && record.phase == Phase::Done)
}

/// As many replicas as ran of it.
fn redeploy(version: &str, records: &[Record]) -> Result<DeployArgs> {
    let message = format!("version {version} isn't here any more and not in the history; deploy its image");
    let known = last_done(version, records).cloned();
    let known = known.ok_or_else(|| Failure::new(Exit::Precondition, message))?;
    let args = DeployArgs::of(known.image)?;
    let replicas = if known.replicas > 0 { known.replicas } else { args.replicas };
    let image_id = Some(known.image_id).filter(|id| !id.is_empty());
    Ok(DeployArgs { replicas, image_id, version: Some(version.to_owned()), ..args })
}

/// The image that ran, by its id: its tag may be another image's by now.
pub async fn same_image(engine: &dyn Engine, args: &DeployArgs) -> Result<String> {
    let Some(id) = &args.image_id else { return Ok(args.image.clone()) };
    if engine.image(id).await.is_ok() || engine.image(&args.image).await?.id == *id {
        return Ok(id.clone());
    }
    let message =
        format!("{} is another image than {id}, which ran and isn't here any more; deploy an image", args.image);
    Err(Failure::new(Exit::Precondition, message))
}
