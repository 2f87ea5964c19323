//! From a plan to new replicas that are ready, checked by the balancer and without traffic.

use futures_util::future::{join_all, try_join_all};

use super::machine::{Machine, Order};
use super::parts::{Admin, Change, Recipe, Replica, Seen};
use crate::exit::{Exit, Failure, Result};
use crate::state::journal::{Phase, Strategy};

/// Where replicas say whether they are ready.
const READY: &str = "/health/ready";

impl Machine<'_> {
    pub(super) async fn prepare(&mut self, order: &Order) -> Result<()> {
        let fresh = self.deploy.strategy != Strategy::Rollback;
        if fresh {
            self.clear().await?;
        }
        self.enter(Phase::Cleared)?;
        self.heed()?;
        if fresh {
            // The baseline is as the old ones are, whatever changes for the new ones.
            let same = Recipe { environment: Vec::new(), ..order.recipe.clone() };
            let new = self.deploy.new.iter().map(|one| (one, &order.recipe));
            let all = new.chain(self.deploy.baseline.iter().map(|one| (one, &same)));
            try_join_all(all.map(|(one, recipe)| self.engine.create(one, recipe))).await?;
        }
        self.enter(Phase::Created)?;
        let before = if fresh { Vec::new() } else { self.look().await?.1 };
        try_join_all(self.deploy.made().map(|one| self.engine.start(&one.container))).await?;
        self.enter(Phase::Started)?;
        self.wait_ready(order, &before).await?;
        self.enter(Phase::Ready)?;
        for one in self.deploy.made() {
            for path in &order.smoke {
                let answer = self.engine.get(one, path).await;
                let said = answer.map_or_else(|error| error, |answer| format!("status {}", answer.status));
                if !said.starts_with("status 2") {
                    let message = format!("{} failed the smoke request {path}: {said}", one.container);
                    return Err(Failure::new(Exit::NeverReady, message));
                }
            }
        }
        self.enter(Phase::Smoked)?;
        self.heed()?;
        self.admit(order).await?;
        self.enter(Phase::Admitted)
    }

    /// Removes what other deploys left in these slots, the plan saw to it that they have no traffic, and what was kept of
    /// the version before the running one: the running one takes its place.
    async fn clear(&mut self) -> Result<()> {
        let (slots, seen) = self.look().await?;
        let idle = |name: &str| slots.iter().any(|slot| slot.name == name && !slot.takes_traffic());
        // Also those that get nobody new: the balancer would check them for ever.
        let left = self.deploy.kept.iter().filter(|one| idle(&one.slot));
        let close = self.deploy.made().chain(left).map(|one| Change::Maint(one.slot.clone()));
        self.balancer.apply(&close.collect::<Vec<_>>()).await?;
        let mine = |one: &&Seen| self.deploy.made().any(|made| made.slot == one.slot);
        let kept = |one: &&Seen| idle(&one.slot) && self.deploy.kept.iter().any(|kept| kept.container == one.name);
        let others = seen.iter().filter(|one| one.deploy.as_ref() != Some(&self.deploy.id));
        try_join_all(others.filter(|one| mine(one) || kept(one)).map(async |one| {
            self.engine.stop(&one.name, self.deploy.timing.grace).await?;
            self.engine.remove(&one.name).await
        }))
        .await?;
        (self.deploy.kept, self.deploy.warm_until) = (Vec::new(), None);
        Ok(())
    }

    /// Of replicas that are only woken, `before` says how they were.
    async fn wait_ready(&self, order: &Order, before: &[Seen]) -> Result<()> {
        let all = self.until(order.ready, async || {
            self.heed()?;
            let (_, seen) = self.look().await?;
            for one in self.deploy.made() {
                let named = |seen: &&Seen| seen.name == one.container;
                let mine = seen.iter().find(named).cloned();
                if let Some(broken) = mine.and_then(|seen| seen.since(before.iter().find(named)).broken()) {
                    return Err(self.never_ready(one, broken).await);
                }
            }
            let asked = join_all(self.deploy.made().map(|one| self.engine.get(one, READY))).await;
            Ok(asked.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status == 200)).then_some(()))
        });
        if all.await?.is_some() {
            return Ok(());
        }
        for one in self.deploy.made() {
            let said = match self.engine.get(one, READY).await {
                Ok(answer) if answer.status == 200 => continue,
                Ok(answer) => format!("{READY} answers {}", answer.status),
                Err(error) => format!("{READY}: {error}"),
            };
            let cause = format!("{} wasn't ready within {:?}; {said}", one.container, order.ready);
            return Err(self.never_ready(one, cause).await);
        }
        Err(Failure::new(Exit::NeverReady, format!("not all were ready at once within {:?}", order.ready)))
    }

    async fn never_ready(&self, replica: &Replica, cause: String) -> Failure {
        let log = self.engine.log(&replica.container).await.unwrap_or_default();
        let log = if log.is_empty() { log } else { format!("; its last lines:\n{log}") };
        Failure::new(Exit::NeverReady, format!("{cause}{log}"))
    }

    /// Opens the slots at weight 0 and waits until the balancer's own check has passed. A slot that is only drained is
    /// checked already.
    async fn admit(&self, order: &Order) -> Result<()> {
        let slots = self.balancer.slots().await?;
        let drained = |one: &&Replica| slots.iter().any(|slot| slot.name == one.slot && slot.admin == Admin::Drain);
        let closed = self.deploy.made().filter(|one| !drained(one));
        let open = closed.flat_map(|one| [Change::Weight(one.slot.clone(), 0), Change::Ready(one.slot.clone())]);
        self.balancer.apply(&open.collect::<Vec<_>>()).await?;
        let passed = self.until(order.ready, async || {
            self.heed()?;
            let slots = self.balancer.slots().await?;
            let up = |one: &Replica| slots.iter().any(|slot| slot.name == one.slot && slot.up);
            Ok(self.deploy.made().all(up).then_some(()))
        });
        let message = format!("the balancer's check of the new replicas didn't pass within {:?}", order.ready);
        passed.await?.ok_or_else(|| Failure::new(Exit::NeverReady, message))
    }
}
