//! The two ends of a deploy, forward and back; each may be begun again after a crash, as often as it takes.

use std::time::Duration;

use futures_util::future::try_join_all;

use super::machine::Machine;
use super::parts::{Admin, Change, Replica, Slot};
use super::traffic::switch;
use crate::exit::{Exit, Failure, Result};
use crate::state::journal::{Phase, Strategy, unix_now};

/// How long the side that is to take over may be without a replica that the balancer finds well.
const TAKE_OVER: Duration = Duration::from_secs(15);

impl Machine<'_> {
    /// Everything to the new replicas.
    pub(super) async fn promote(&mut self) -> Result<()> {
        self.deploy.share = 100;
        self.enter(Phase::Promoted)?;
        self.balancer.apply(&self.promoted()).await
    }

    /// What the balancer is told by that.
    pub(super) fn promoted(&self) -> Vec<Change> {
        switch(&self.deploy.new, self.deploy.old.iter().chain(&self.deploy.baseline))
    }

    /// Lets the old replicas finish, and keeps them warm or stops them.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.enter(Phase::Draining)?;
        let old: Vec<_> = self.deploy.old.iter().chain(&self.deploy.baseline).cloned().collect();
        self.drain(&old, &self.promoted()).await?;
        let baseline: Vec<_> = self.deploy.baseline.iter().cloned().collect();
        self.discard(&baseline).await?;
        self.deploy.baseline = None;
        self.deploy.kept = self.deploy.old.clone();
        let warm = self.deploy.timing.keep_warm;
        if warm.is_zero() {
            self.retire().await?;
        } else {
            self.deploy.warm_until = Some(unix_now() + warm.as_secs());
        }
        self.deploy.outcome = Some("promoted".to_owned());
        self.enter(Phase::Done)
    }

    /// Everything back to the old replicas. What this deploy made goes; what it only woke is stopped again. The traffic
    /// goes back whether or not that can be written down: a journal that still says promoted leads here again as well,
    /// see [`Self::given_back`].
    pub(super) async fn roll_back(&mut self, outcome: &str, reason: &str) -> Result<()> {
        self.deploy.reason = Some(reason.to_owned());
        self.deploy.share = 0;
        self.deploy.outcome = None;
        self.enter(Phase::RollingBack).unwrap_or_else(|unwritten| self.warn(&unwritten));
        let undone = self.give_back().await;
        self.deploy.outcome = Some(if undone.is_ok() { outcome } else { "needs-operator" }.to_owned());
        match undone {
            Ok(()) => {
                // Said once more for the balancer's own record, which may have failed before: while it can't be kept,
                // the next command tries again.
                let kept = self.balancer.apply(&switch(&self.deploy.old, std::iter::empty())).await;
                kept.and_then(|()| self.enter(Phase::RolledBack)).map_err(|unwritten| {
                    let message =
                        format!("{reason}; the old version serves, but that can't be written down: {unwritten}");
                    Failure::new(Exit::OperatorNeeded, message)
                })
            }
            Err(worse) => {
                let message = format!("{reason}; and rolling back failed: {worse}");
                self.deploy.reason = Some(message.clone());
                self.enter(Phase::NeedsOperator).unwrap_or_else(|unwritten| self.warn(&unwritten));
                Err(Failure::new(Exit::OperatorNeeded, message))
            }
        }
    }

    async fn give_back(&mut self) -> Result<()> {
        let made: Vec<_> = self.deploy.made().cloned().collect();
        if !self.deploy.old.is_empty() {
            self.turn(&switch(&self.deploy.old, std::iter::empty())).await?;
            self.wait_up(&self.deploy.old).await?;
        }
        self.turn(&switch(&[], made.iter())).await?;
        self.drain(&made, &switch(&self.deploy.old, made.iter())).await?;
        if self.deploy.strategy == Strategy::Rollback {
            self.close(&made).await?;
        } else {
            self.discard(&made).await?;
        }
        self.deploy.baseline = None;
        Ok(())
    }

    /// Makes the changes. On the way back it is enough that they are made, even if the balancer's state can't be kept.
    async fn turn(&self, changes: &[Change]) -> Result<()> {
        let Err(failure) = self.balancer.apply(changes).await else { return Ok(()) };
        if self.deploy.phase == Phase::RollingBack {
            let slots = self.balancer.slots().await?;
            if changes.iter().all(|change| change.holds(&slots)) {
                self.warn(&failure);
                return Ok(());
            }
        }
        Err(failure)
    }

    /// Fails unless the balancer finds at least one of them well.
    pub(super) async fn wait_up(&self, replicas: &[Replica]) -> Result<()> {
        let up = self.until(TAKE_OVER, async || {
            let slots = self.balancer.slots().await?;
            let well = |slot: &Slot| slot.up && replicas.iter().any(|one| one.slot == slot.name);
            Ok(slots.iter().any(well).then_some(()))
        });
        let names: Vec<_> = replicas.iter().map(|one| one.container.as_str()).collect();
        let message = format!("none of {} is up; traffic stays where it is", names.join(", "));
        up.await?.ok_or_else(|| Failure::new(Exit::OperatorNeeded, message))
    }

    /// A balancer that was started anew without its state has forgotten what it was `told`, and is told again.
    pub(super) async fn keep(&self, slots: &[Slot], told: &[Change]) -> Result<()> {
        if told.iter().all(|change| change.holds(slots)) {
            return Ok(());
        }
        self.turn(told).await?;
        let noted = self.note(Some("the balancer had forgotten who has which traffic".to_owned()));
        noted.unwrap_or_else(|unwritten| self.warn(&unwritten));
        Ok(())
    }

    /// Waits until no request is left, and cuts what takes too long.
    async fn drain(&self, replicas: &[Replica], told: &[Change]) -> Result<()> {
        let mine = |slot: &Slot| replicas.iter().any(|one| one.slot == slot.name);
        let empty = self.until(self.deploy.timing.drain, async || {
            let slots = self.balancer.slots().await?;
            self.keep(&slots, told).await?;
            Ok(slots.iter().filter(|slot| mine(slot)).all(|slot| slot.sessions == 0).then_some(()))
        });
        if empty.await?.is_none() {
            let cut: Vec<_> = replicas.iter().map(|one| Change::Cut(one.slot.clone())).collect();
            self.turn(&cut).await?;
            let cut = self.note(Some(format!("sessions cut after {:?}", self.deploy.timing.drain)));
            cut.unwrap_or_else(|unwritten| self.warn(&unwritten));
        }
        Ok(())
    }

    /// Closes the slots, then stops and removes the containers.
    async fn discard(&self, replicas: &[Replica]) -> Result<()> {
        self.close(replicas).await?;
        try_join_all(replicas.iter().map(|one| self.engine.remove(&one.container))).await.map(drop)
    }

    /// Closes the slots and stops the containers. The balancer sends nothing there any more, so SIGTERM loses nothing.
    async fn close(&self, replicas: &[Replica]) -> Result<()> {
        let close: Vec<_> = replicas.iter().map(|one| Change::Maint(one.slot.clone())).collect();
        self.turn(&close).await?;
        let grace = self.deploy.timing.grace;
        try_join_all(replicas.iter().map(|one| self.engine.stop(&one.container, grace))).await.map(drop)
    }

    /// Stops the replicas that were kept warm; their containers stay, so that a rollback need only start them. One that
    /// somebody has given traffic to is left alone.
    async fn retire(&mut self) -> Result<()> {
        let slots = self.balancer.slots().await?;
        let serves = |one: &Replica| slots.iter().any(|slot| slot.name == one.slot && slot.takes_traffic());
        let idle: Vec<_> = self.deploy.kept.iter().filter(|one| !serves(one)).cloned().collect();
        self.close(&idle).await?;
        self.deploy.warm_until = None;
        Ok(())
    }

    /// A promoted version was drained. Nothing on the way forward does that; what was only woken may not have had the
    /// traffic yet, and then leaving it with the old version disturbs nobody.
    async fn given_back(&self) -> Result<bool> {
        let new = |slot: &Slot| self.deploy.new.iter().any(|one| one.slot == slot.name);
        Ok(self.balancer.slots().await?.iter().any(|slot| slot.admin == Admin::Drain && new(slot)))
    }

    /// Finishes or undoes what was interrupted, and stops old replicas whose time is over. Says whether it did anything.
    pub async fn reconcile(&mut self) -> Result<bool> {
        let phase = self.deploy.phase;
        match phase {
            Phase::Done | Phase::RolledBack => {
                if self.deploy.warm_until.is_none_or(|until| unix_now() < until) {
                    return Ok(false);
                }
                self.retire().await?;
                self.state.save(&mut self.deploy)?;
                self.note(Some("old replicas stopped, kept for a rollback".to_owned()))?;
            }
            Phase::Promoted | Phase::Baking if self.given_back().await? => {
                let reason = format!("interrupted while {}, and the old version had the traffic", phase.name());
                self.note(Some(format!("{reason}; undoing")))?;
                self.roll_back("interrupted", &reason).await?;
            }
            Phase::Promoted | Phase::Baking | Phase::Draining => {
                self.note(Some(format!("was interrupted while {}; finishing", phase.name())))?;
                match self.wait_up(&self.deploy.new).await {
                    Ok(()) => {
                        self.promote().await?;
                        self.settle().await?;
                    }
                    Err(dead) if dead.exit == Exit::OperatorNeeded => {
                        self.roll_back("interrupted", &format!("interrupted, and {dead}")).await?;
                    }
                    // A balancer that can't be asked says nothing about them.
                    Err(unknown) => return Err(unknown),
                }
            }
            _ => {
                self.note(Some(format!("was interrupted while {}; undoing", phase.name())))?;
                let reason = self.deploy.reason.clone();
                let reason = reason.unwrap_or_else(|| format!("interrupted while {}", phase.name()));
                self.roll_back("interrupted", &reason).await?;
            }
        }
        Ok(true)
    }
}
