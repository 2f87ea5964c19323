//! What deploys answer with.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::traffic::weights;
use crate::output::Document;
use crate::output::table::table;
use crate::state::journal::{Deploy, Phase};

/// A deploy that has ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    seconds: f64,
    #[serde(flatten)]
    deploy: Deploy,
}

impl Report {
    /// It took so long.
    pub fn new(deploy: Deploy, took: Duration) -> Self {
        Self { seconds: took.as_secs_f64(), deploy }
    }
}

impl Document for Report {
    const KIND: &'static str = "deploy";
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deploy { id, version, phase, new, warm_until, .. } = &self.deploy;
        let (phase, slots) = (phase.name(), new.iter().map(|one| one.slot.as_str()).collect::<Vec<_>>().join(", "));
        writeln!(f, "{id}: version {version} in {slots}: {phase}")?;
        if self.deploy.phase == Phase::Done && warm_until.is_some() {
            writeln!(
                f,
                "The old replicas are kept warm for {:?}: `ops rollback` goes back.",
                self.deploy.timing.keep_warm
            )?;
        }
        Ok(())
    }
}

/// What a deploy would do.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Plan {
    deploy: Deploy,
    steps: Vec<Step>,
}

/// The weights at one moment of a deploy.
#[derive(Debug, Serialize, JsonSchema)]
struct Step {
    share: u32,
    weights: Vec<Weight>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Weight {
    slot: String,
    weight: u32,
}

impl Plan {
    /// These steps, and the promotion.
    pub fn new(deploy: Deploy, shares: &[u32]) -> Self {
        let steps = shares.iter().copied().chain([100]).map(|share| {
            let weights = weights(&deploy, share).into_iter();
            Step { share, weights: weights.map(|(slot, weight)| Weight { slot, weight }).collect() }
        });
        let steps = steps.collect();
        Self { deploy, steps }
    }
}

impl Document for Plan {
    const KIND: &'static str = "plan";
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deploy { old, new, baseline, image, .. } = &self.deploy;
        let sides = [("old", old.as_slice()), ("new", new.as_slice()), ("baseline", baseline.as_slice())];
        let rows: Vec<_> = sides
            .iter()
            .flat_map(|(side, replicas)| {
                replicas.iter().map(move |one| [(*side).to_owned(), one.slot.clone(), one.container.clone()])
            })
            .collect();
        writeln!(f, "Would deploy {image}:")?;
        f.write_str(&table(["SIDE", "SLOT", "CONTAINER"], &rows))?;
        for step in &self.steps {
            let weights: Vec<_> = step.weights.iter().map(|one| format!("{} {}", one.slot, one.weight)).collect();
            writeln!(f, "at {:3} %: {}", step.share, weights.join(", "))?;
        }
        Ok(())
    }
}
