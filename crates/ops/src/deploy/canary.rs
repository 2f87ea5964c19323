//! A canary's steps, each judged on its own, and the watch after a promotion.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::machine::{Machine, Steps, Undecided};
use super::meter::{Meter, Page};
use super::parts::{Change, Replica, Seen, Slot};
use super::traffic::{canaries, weights};
use crate::exit::{Exit, Failure, Result};
use crate::gate::{Arm, Judge, Sample, Settings, Verdict, limits_exceeded};
use crate::state::journal::Phase;
use crate::state::wish::Wish;

/// Between two looks at the balancer's counters; at 1,000 requests a second an error is seen within 200 of them.
const TICK: Duration = Duration::from_millis(200);
/// Looks between two pages of metrics.
const PAGES: u64 = 5;
/// Requests of our own per look, to each side.
const PROBES: u64 = 10;
/// Significance of the limits after the promotion.
const BAKE_ALPHA: f64 = 0.001;

/// What is counted in a step.
#[derive(Default)]
struct Counted {
    canary: Meter,
    baseline: Meter,
    others: Meter,
    looks: u64,
}

impl Machine<'_> {
    pub(super) async fn canary(&mut self, steps: &Steps) -> Result<()> {
        for share in steps.shares.iter().copied().filter(|share| *share < 100) {
            self.heed()?;
            self.deploy.share = share;
            self.enter(Phase::Step)?;
            self.balancer.apply(&self.desired()).await?;
            match self.step(steps).await? {
                Verdict::Fail(reason) => return Err(Failure::new(Exit::GateFailed, reason)),
                Verdict::Inconclusive(reason) => self.undecided(steps.inconclusive, &reason)?,
                Verdict::Pass | Verdict::Continue => {}
            }
            self.between_steps().await?;
        }
        Ok(())
    }

    fn desired(&self) -> Vec<Change> {
        let weights = weights(&self.deploy, self.deploy.share);
        weights
            .into_iter()
            .flat_map(|(slot, weight)| [Change::Weight(slot.clone(), weight), Change::Ready(slot)])
            .collect()
    }

    async fn step(&mut self, steps: &Steps) -> Result<Verdict> {
        let (mut judge, mut counted) = (Judge::new(steps.settings.clone()), Counted::default());
        let (start, mut warm) = (Instant::now(), None);
        loop {
            self.heed()?;
            let zero_tolerance = self.count(&mut counted, steps.probe.as_deref()).await?;
            if warm.is_none() && start.elapsed() >= steps.warm_up {
                warm = Some(Instant::now());
                counted.canary.warm();
                counted.baseline.warm();
            }
            let sample = Sample {
                canary: self.arm(&counted.canary, warm),
                baseline: self.arm(&counted.baseline, warm),
                others: counted.others.arm(),
                elapsed: warm.map_or(Duration::ZERO, |warm| warm.elapsed()),
                zero_tolerance,
            };
            let (canary, baseline) = (&sample.canary, &sample.baseline);
            self.output.ticker(format!(
                "{:3} %: canary {} of {} failed, baseline {} of {}",
                self.deploy.share, canary.errors, canary.requests, baseline.errors, baseline.requests
            ));
            let verdict = judge.look(&sample);
            if verdict != Verdict::Continue {
                self.note(Some(describe(&verdict, &sample)))?;
                return Ok(verdict);
            }
            sleep(TICK).await;
        }
    }

    /// Errors count from the first request; durations only when both sides have warmed up.
    fn arm(&self, meter: &Meter, warm: Option<Instant>) -> Arm {
        let arm = meter.arm();
        if warm.is_some() { arm } else { Arm { latency: crate::gate::Histogram::default(), ..arm } }
    }

    /// Looks at everything once; says what must never happen and did.
    async fn count(&self, counted: &mut Counted, probe: Option<&str>) -> Result<Vec<String>> {
        let (slots, seen) = self.look().await?;
        let active = canaries(&self.deploy, self.deploy.share);
        let baseline: Vec<_> = self.deploy.baseline.iter().cloned().collect();
        self.keep(&slots, &self.desired()).await?;
        counted.canary.count(active, &slots);
        counted.baseline.count(&baseline, &slots);
        counted.others.count(&self.deploy.old, &slots);
        if counted.looks.is_multiple_of(PAGES) {
            tokio::join!(self.pages(active, &mut counted.canary), self.pages(&baseline, &mut counted.baseline));
        }
        counted.looks += 1;
        if let Some(path) = probe {
            let (canary, base) = tokio::join!(self.probe(active, path), self.probe(&baseline, path));
            counted.canary.probed(PROBES, canary);
            counted.baseline.probed(PROBES, base);
        }
        Ok(alarms(&self.deploy.new, &slots, &seen, counted.canary.panics()))
    }

    async fn pages(&self, replicas: &[Replica], meter: &mut Meter) {
        for one in replicas {
            let answer = self.engine.get(one, "/metrics").await;
            if let Some(answer) = answer.ok().filter(|answer| answer.status == 200) {
                meter.page(&one.container, Page::read(&answer.body));
            }
        }
    }

    /// How many of our own requests failed.
    async fn probe(&self, replicas: &[Replica], path: &str) -> u64 {
        let Some(one) = replicas.first() else { return 0 };
        let asked = (0..PROBES).map(|_| self.engine.get(one, path));
        let answers = join_all(asked).await;
        answers.iter().filter(|answer| !answer.as_ref().is_ok_and(|answer| answer.status < 500)).map(|_| 1).sum()
    }

    fn undecided(&self, what: Undecided, reason: &str) -> Result<()> {
        match what {
            Undecided::Rollback => Err(Failure::new(Exit::Inconclusive, reason)),
            Undecided::Promote => Ok(()),
            Undecided::Hold => self.state.wish(Wish::Pause).map(drop),
        }
    }

    /// Looks once more at what must never happen, and for as long as the canary is paused.
    async fn between_steps(&self) -> Result<()> {
        let (mut meter, mut looks) = (Meter::default(), 0_u64);
        loop {
            let (slots, seen) = self.look().await?;
            if looks.is_multiple_of(PAGES) {
                self.pages(&self.deploy.new, &mut meter).await;
            }
            self.tolerate(&alarms(&self.deploy.new, &slots, &seen, meter.panics()))?;
            if self.wishes.now() != Wish::Pause {
                return self.heed();
            }
            if looks == 0 {
                self.note(Some("paused; `ops resume` goes on, `ops abort` undoes it".to_owned()))?;
            }
            looks += 1;
            self.keep(&slots, &self.desired()).await?;
            sleep(TICK).await;
        }
    }

    fn tolerate(&self, alarms: &[String]) -> Result<()> {
        if alarms.is_empty() { Ok(()) } else { Err(Failure::new(Exit::GateFailed, alarms.join("; "))) }
    }

    /// Watches the promoted replicas while the old ones could still take over at once.
    pub(super) async fn bake(&mut self, time: Duration, settings: &Settings) -> Result<()> {
        self.enter(Phase::Baking)?;
        let (told, mut meter, start, mut looks) = (self.promoted(), Meter::default(), Instant::now(), 0_u64);
        while start.elapsed() < time {
            self.heed()?;
            let (slots, seen) = self.look().await?;
            self.keep(&slots, &told).await?;
            meter.count(&self.deploy.new, &slots);
            if looks.is_multiple_of(PAGES) {
                self.pages(&self.deploy.new, &mut meter).await;
            }
            looks += 1;
            let mut alarms = alarms(&self.deploy.new, &slots, &seen, meter.panics());
            alarms.extend(limits_exceeded(&meter.arm(), settings, BAKE_ALPHA));
            self.tolerate(&alarms)?;
            sleep(TICK).await;
        }
        Ok(())
    }
}

/// Requests, errors and the mean of the durations that are known.
fn side(arm: &Arm) -> String {
    let known: u64 = arm.latency.buckets.iter().map(|(_, count)| count).sum();
    let mean = Duration::try_from_secs_f64(arm.latency.seconds).unwrap_or_default();
    let mean = mean / u32::try_from(known.max(1)).unwrap_or(u32::MAX);
    format!("{} of {} failed, {mean:.0?} on average", arm.errors, arm.requests)
}

fn describe(verdict: &Verdict, sample: &Sample) -> String {
    let (canary, baseline) = (side(&sample.canary), side(&sample.baseline));
    let seen = format!("canary {canary}; baseline {baseline}; after {:.0?}", sample.elapsed);
    match verdict {
        Verdict::Pass => format!("passed: {seen}"),
        Verdict::Fail(reason) => format!("failed: {reason} ({seen})"),
        Verdict::Inconclusive(reason) => format!("inconclusive: {reason} ({seen})"),
        Verdict::Continue => seen,
    }
}

fn alarms(new: &[Replica], slots: &[Slot], seen: &[Seen], panics: u64) -> Vec<String> {
    let broken = new.iter().filter_map(|one| match seen.iter().find(|seen| seen.name == one.container) {
        Some(seen) => seen.broken(),
        None => Some(format!("{} is gone", one.container)),
    });
    let unready = new.iter().filter(|one| slots.iter().any(|slot| slot.name == one.slot && slot.down));
    let unready = unready.map(|one| format!("{} isn't ready any more", one.container));
    broken.chain(unready).chain((panics > 0).then(|| format!("{panics} panics"))).collect()
}
