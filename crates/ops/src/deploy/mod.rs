//! `ops deploy`: a new version behind the balancer, or back to the old one, without a lost request.

pub mod args;
pub mod canary;
pub mod machine;
pub mod meter;
pub mod migrations;
pub mod parts;
pub mod plan;
pub mod prepare;
pub mod report;
pub mod rollback;
pub mod settle;
pub mod strictness;
pub mod traffic;

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use crate::cli::Global;
use crate::engine::target::{LOOK, connect};
use crate::exit::{Exit, Failure, Result};
use crate::output::Output;
use crate::state::State;
use crate::state::journal::{Deploy, Phase};
use crate::state::lock::Lock;
use crate::state::wish::Wishes;
use args::Args;
use machine::{Machine, Order};
use parts::{Balancer, Engine, Recipe};
use report::Report;

/// Everything a command that changes something needs; it holds the lock.
pub struct Site<'a> {
    pub engine: Arc<dyn Engine>,
    pub balancer: Arc<dyn Balancer>,
    pub state: State,
    pub wishes: Wishes,
    output: &'a Output,
    textfile: Option<&'a Path>,
    _lock: Lock,
}

impl<'a> Site<'a> {
    /// Takes the lock, and finishes or undoes what was interrupted.
    pub async fn enter(global: &'a Global, output: &'a Output, command: &str) -> Result<Self> {
        let state = State::new(&global.state_dir);
        let lock = state.lock(command)?;
        state.forget_wishes()?;
        let wishes = Wishes::listen(&state)?;
        let (engine, balancer) = connect(global, global.engine.timeout).await?;
        let site = Self { engine, balancer, state, wishes, output, textfile: global.textfile.as_deref(), _lock: lock };
        site.reconcile().await?;
        Ok(site)
    }

    async fn reconcile(&self) -> Result<()> {
        if let Some(deploy) = self.state.deploy()? {
            self.machine(deploy).reconcile().await?;
        }
        Ok(())
    }

    /// A machine for this deploy.
    pub fn machine(&self, deploy: Deploy) -> Machine<'_> {
        Machine {
            engine: &*self.engine,
            balancer: &*self.balancer,
            state: &self.state,
            wishes: &self.wishes,
            output: self.output,
            textfile: self.textfile,
            began: Instant::now(),
            deploy,
        }
    }

    /// Runs the deploy and shows what came of it.
    pub async fn run(&self, deploy: Deploy, order: &Order) -> Result<Exit> {
        let mut machine = self.machine(deploy);
        machine.run(order).await?;
        self.output.show(&Report::new(machine.deploy, machine.began.elapsed()))?;
        Ok(Exit::Done)
    }
}

/// Deploys.
pub async fn run(args: &Args, global: &Global, output: &Output) -> Result<Exit> {
    args.check()?;
    if args.dry_run {
        return dry_run(args, global, output).await;
    }
    let site = Site::enter(global, output, "deploy").await?;
    begin(args, &site).await
}

async fn begin(args: &Args, site: &Site<'_>) -> Result<Exit> {
    let slots = site.balancer.slots().await?;
    let seen = site.engine.containers(&slots).await?;
    let mut deploy = plan::plan(&slots, &seen, &args.wanted(""))?;
    let like = args.like.clone().or_else(|| deploy.old.first().map(|one| one.container.clone()));
    let like = like.ok_or_else(|| {
        let message = "nothing runs in the slots: name a container whose settings the new ones get with --like";
        Failure::new(Exit::Precondition, message)
    })?;
    let recipe = Recipe { deploy: deploy.id.clone(), like, environment: args.environment.clone() };
    let checked = tokio::select! {
        checked = check(site, args, &recipe, &mut deploy) => checked,
        () = site.wishes.aborted() => {
            let removed = site.engine.remove(&parts::once(&recipe)).await;
            removed.unwrap_or_else(|left| site.output.progress(format!("warning: {left}")));
            Err(Failure::new(Exit::Interrupted, "interrupted before any replica was changed"))
        }
    };
    if let Err(failure) = checked {
        // No replica was changed, so there is nothing to journal; the history knows of it all the same.
        deploy.phase = Phase::RolledBack;
        deploy.outcome = Some("refused".to_owned());
        let written = site.state.audit(&deploy, Some(failure.message.clone()));
        written.unwrap_or_else(|unwritten| site.output.progress(format!("warning: {unwritten}")));
        return Err(failure);
    }
    site.run(deploy, &args.order(recipe)).await
}

/// Neither locks nor changes anything.
async fn dry_run(args: &Args, global: &Global, output: &Output) -> Result<Exit> {
    let (engine, balancer) = connect(global, LOOK).await?;
    show_plan(args, &*engine, &*balancer, output).await
}

async fn show_plan(args: &Args, engine: &dyn Engine, balancer: &dyn Balancer, output: &Output) -> Result<Exit> {
    let slots = balancer.slots().await?;
    let seen = engine.containers(&slots).await?;
    let version = args.version.as_deref().unwrap_or("known once it is pulled");
    let deploy = plan::plan(&slots, &seen, &args.wanted(version))?;
    output.show(&report::Plan::new(deploy, &args.shares()))?;
    Ok(Exit::Done)
}

/// Names the image in the deploy, if it can run here and fits the database.
async fn check(site: &Site<'_>, args: &Args, recipe: &Recipe, deploy: &mut Deploy) -> Result<()> {
    let image = site.engine.image(&args.image).await?;
    deploy.version = args.version.clone().unwrap_or(image.version);
    for one in &mut deploy.new {
        one.version.clone_from(&deploy.version);
        one.image_id.clone_from(&image.id);
    }
    if args.no_migration_check {
        return Ok(());
    }
    migrations::check(&*site.engine, &site.state, args, recipe, deploy).await
}

/// `ops reconcile`: only what every other command does first.
pub async fn reconcile(global: &Global, output: &Output) -> Result<Exit> {
    let site = Site::enter(global, output, "reconcile").await?;
    match site.state.deploy()? {
        Some(deploy) => output.show(&Report::new(deploy, std::time::Duration::ZERO))?,
        None => output.progress("nothing has been deployed yet"),
    }
    Ok(Exit::Done)
}
