//! Options of `ops deploy`.

use std::time::Duration;

use humantime::parse_duration;

use super::machine::{Order, Steps, Undecided};
use super::parts::Recipe;
use super::plan::Wanted;
use super::strictness::Strictness;
use crate::exit::{Exit, Failure, OrExit, Result};
use crate::gate::Settings;
use crate::state::journal::{Strategy, Timing};

/// Arguments of `ops deploy`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The image of the new version.
    pub image: String,
    /// All at once, or in steps that are judged.
    #[arg(long, value_enum, default_value = "blue-green")]
    pub strategy: Strategy,
    /// Replicas of the new version.
    #[arg(long, default_value_t = 3)]
    pub replicas: usize,
    /// Show slots, weights and steps, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The container whose settings, mounts and networks the new ones get [default: one that takes traffic].
    #[arg(long)]
    pub like: Option<String>,
    /// NAME=VALUE that the new containers get instead.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub environment: Vec<String>,
    /// A path that each new replica must answer with 2xx before it gets traffic; may be repeated.
    #[arg(long)]
    pub smoke: Vec<String>,
    /// How long new replicas may take to get ready.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub ready_timeout: Duration,
    /// How long old replicas may take to finish requests before these are cut.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// Between SIGTERM and SIGKILL; above the service's SHUTDOWN_TIMEOUT.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub stop_grace: Duration,
    /// How long old replicas run on without traffic, so that a rollback takes no time.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub keep_warm: Duration,
    /// How long to watch after the promotion before the old replicas are drained [default: 2m after a canary, else 0s].
    #[arg(long, value_parser = parse_duration)]
    pub bake: Option<Duration>,
    /// Canary: percent of the traffic in each step; 100 is the promotion.
    #[arg(long, value_delimiter = ',', default_value = "10,50,100", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub steps: Vec<u32>,
    /// Canary: time at each step in which durations aren't judged yet.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub warm_up: Duration,
    /// Canary: the shortest step.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub step_min: Duration,
    /// Canary: the longest step; then it is inconclusive. Slower answers are proven after half a minute at the earliest.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub step_max: Duration,
    /// Canary: requests that canary and baseline must have answered each before a step passes.
    #[arg(long, default_value_t = 500)]
    pub min_requests: u64,
    #[command(flatten)]
    pub strictness: Strictness,
    /// Canary: ask canary and baseline ourselves, for when there is no traffic.
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "/api/test")]
    pub probe: Option<String>,
    /// Canary: what to do when nobody can say.
    #[arg(long, value_enum, default_value = "rollback")]
    pub on_inconclusive: Undecided,
    /// Apply pending migrations first.
    #[arg(long)]
    pub migrate: bool,
    /// Deploy although a pending migration takes something away that the old version needs.
    #[arg(long)]
    pub allow_contract: bool,
    /// What ran, when it is to run again: its version's name and its image's id.
    #[arg(skip)]
    pub version: Option<String>,
    #[arg(skip)]
    pub image_id: Option<String>,
    /// Don't ask the image whether migrations are pending.
    #[arg(long)]
    pub no_migration_check: bool,
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

impl Args {
    /// A deploy of this image with the defaults. Its schema was good enough before.
    pub fn of(image: String) -> Result<Self> {
        let words = ["deploy".to_owned(), image, "--no-migration-check".to_owned()];
        let command =
            <Command as clap::Parser>::try_parse_from(words).or_exit(Exit::Usage, "can't deploy that image")?;
        Ok(command.args)
    }

    /// What clap can't check.
    pub fn check(&self) -> Result<()> {
        let usage = |message: &str| Err(Failure::new(Exit::Usage, message));
        if !self.steps.is_sorted_by(|a, b| a < b) {
            return usage("--steps must rise, such as 10,50,100");
        }
        if self.environment.iter().any(|pair| !pair.contains('=')) {
            return usage("--env is NAME=VALUE");
        }
        if self.step_min > self.step_max {
            return usage("--step-min is above --step-max");
        }
        Ok(())
    }

    /// Steps below the promotion.
    pub fn shares(&self) -> Vec<u32> {
        let canary = self.strategy == Strategy::Canary;
        self.steps.iter().copied().filter(|share| canary && *share < 100).collect()
    }

    pub(super) fn wanted(&self, version: &str) -> Wanted {
        Wanted {
            strategy: self.strategy,
            image: self.image.clone(),
            version: version.to_owned(),
            replicas: self.replicas,
            timing: Timing { drain: self.drain_timeout, grace: self.stop_grace, keep_warm: self.keep_warm },
        }
    }

    /// How a canary is judged.
    pub fn settings(&self) -> Settings {
        Settings {
            steps: u32::try_from(self.shares().len()).unwrap_or(u32::MAX),
            min_requests: self.min_requests,
            min_elapsed: self.step_min,
            max_elapsed: self.step_max,
            ..self.strictness.settings()
        }
    }

    pub(super) fn order(&self, recipe: Recipe) -> Order {
        let canary = self.strategy == Strategy::Canary;
        Order {
            recipe,
            ready: self.ready_timeout,
            smoke: self.smoke.clone(),
            bake: self.bake.unwrap_or(Duration::from_secs(if canary { 120 } else { 0 })),
            canary: Steps {
                shares: self.shares(),
                warm_up: self.warm_up,
                settings: self.settings(),
                probe: self.probe.clone(),
                inconclusive: self.on_inconclusive,
            },
        }
    }
}
