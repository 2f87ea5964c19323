//! The state machine: each phase is written down before it is acted on, and any failure before the end undoes all.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::parts::{Balancer, Engine, Recipe, Seen, Slot};
use crate::exit::{Exit, Failure, Result};
use crate::gate::Settings;
use crate::output::Output;
use crate::state::State;
use crate::state::journal::{Deploy, Phase, Strategy};
use crate::state::wish::{Wish, Wishes};

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);

/// What a new deploy needs beyond its journal; one that was interrupted is finished or undone without.
#[derive(Debug, Clone)]
pub struct Order {
    pub recipe: Recipe,
    /// How long new replicas may take to get ready.
    pub ready: Duration,
    /// Paths that each new replica must answer with 2xx before it gets traffic.
    pub smoke: Vec<String>,
    /// How long to watch before the old ones are drained.
    pub bake: Duration,
    pub canary: Steps,
}

/// A canary's steps.
#[derive(Debug, Clone)]
pub struct Steps {
    /// Percent of the traffic, rising; 100 is the promotion.
    pub shares: Vec<u32>,
    pub warm_up: Duration,
    pub settings: Settings,
    /// What ops asks canary and baseline itself, where there is no traffic.
    pub probe: Option<String>,
    pub inconclusive: Undecided,
}

/// What to do with a canary that nobody can judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Undecided {
    /// Undo it.
    Rollback,
    /// Go on.
    Promote,
    /// Wait for `ops resume` or `ops abort`.
    Hold,
}

/// One deploy with all it acts on.
pub struct Machine<'a> {
    pub engine: &'a dyn Engine,
    pub balancer: &'a dyn Balancer,
    pub state: &'a State,
    pub wishes: &'a Wishes,
    pub output: &'a Output,
    pub textfile: Option<&'a Path>,
    pub began: Instant,
    pub deploy: Deploy,
}

impl Machine<'_> {
    /// Deploys; a failure is undone first, and then says what happened.
    pub async fn run(&mut self, order: &Order) -> Result<()> {
        // What the deploy before has kept stays known, and its time goes on.
        if let Some(before) = self.state.deploy()? {
            (self.deploy.kept, self.deploy.warm_until) = (before.kept, before.warm_until);
        }
        self.enter(Phase::Planned)?;
        match self.forward(order).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.undo(failure).await),
        }
    }

    async fn forward(&mut self, order: &Order) -> Result<()> {
        self.prepare(order).await?;
        if self.deploy.strategy == Strategy::Canary {
            self.canary(&order.canary).await?;
        }
        self.heed()?;
        self.promote().await?;
        if !order.bake.is_zero() {
            self.bake(order.bake, &order.canary.settings).await?;
        }
        self.settle().await
    }

    /// After the promotion has held, nothing is undone any more: what is left can be finished later.
    async fn undo(&mut self, failure: Failure) -> Failure {
        if matches!(self.deploy.phase, Phase::Draining | Phase::Done) {
            let message = format!("{failure}; the new version serves; `ops reconcile` finishes what is left");
            return Failure::new(failure.exit, message);
        }
        let outcome = match failure.exit {
            Exit::NeverReady => "never-ready",
            Exit::Inconclusive => "inconclusive",
            Exit::Interrupted => "aborted",
            Exit::GateFailed => "gate-failed",
            _ => "failed",
        };
        match self.roll_back(outcome, &failure.message).await {
            Ok(()) => failure,
            Err(worse) => worse,
        }
    }

    /// Writes the phase down, then says so.
    pub(super) fn enter(&mut self, phase: Phase) -> Result<()> {
        self.deploy.phase = phase;
        self.state.save(&mut self.deploy)?;
        self.note(None)
    }

    /// Audits what happened in this phase.
    pub(super) fn note(&self, detail: Option<String>) -> Result<()> {
        let Deploy { id, phase, share, reason, .. } = &self.deploy;
        let seconds = self.began.elapsed().as_secs_f64();
        let said = detail.as_ref().or(reason.as_ref()).map(|text| format!(": {text}")).unwrap_or_default();
        self.output.progress(format!("{seconds:8.2}s {id} {:14} {share:3} %{said}", phase.name()));
        self.state.audit(&self.deploy, detail)?;
        if let Some(Err(failure)) = self.textfile.map(|path| self.state.export(&self.deploy, path)) {
            self.warn(&failure);
        }
        Ok(())
    }

    /// Says what failed and stops nothing.
    pub(super) fn warn(&self, failure: &Failure) {
        self.output.progress(format!("warning: {failure}"));
    }

    /// Fails when somebody wants the deploy undone.
    pub(super) fn heed(&self) -> Result<()> {
        match self.wishes.now() {
            Wish::Abort => Err(Failure::new(Exit::Interrupted, "interrupted; the old version has all traffic")),
            Wish::Go | Wish::Pause => Ok(()),
        }
    }

    /// Looks until `done` gives something; None when the time is over.
    pub(super) async fn until<T>(
        &self,
        limit: Duration,
        mut done: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(value) = done().await? {
                return Ok(Some(value));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            sleep(POLL).await;
        }
    }

    pub(super) async fn look(&self) -> Result<(Vec<Slot>, Vec<Seen>)> {
        let slots = self.balancer.slots().await?;
        let seen = self.engine.containers(&slots).await?;
        Ok((slots, seen))
    }
}
