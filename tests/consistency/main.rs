//! The history checker: three replicas of the service, clients that write and read all the time, faults one after the
//! other or two at a time, and a judge who knows every write and looks at every answer. `cargo dev consistency --help` tells more.
//!
//! A seed draws the same choices again; the interleavings of real processes come as they come.

mod client;
mod faults;
mod judge;
mod load;
mod report;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use faults::{Fault, inflict};
use judge::Tally;
use load::Load;
use report::{heading, row, say};
use world::World;

/// What a plain `cargo test` runs: long enough for outages that outlast the bound.
const SHORT: (Duration, &[&[Fault]]) = (
    Duration::from_secs(27),
    &[&[Fault::ReplicaBlackholed], &[Fault::RedisRefusesWrites], &[Fault::ReplicaBlind, Fault::ReplicaKilled]],
);
/// Each fault gets at least this long.
const LEAST: Duration = Duration::from_secs(6);
/// A fault that lasts longer shows nothing new: the bound is 1 s.
const LONGEST: Duration = Duration::from_secs(5);

/// Does any replica return an older value later than promised, whatever breaks?
#[derive(Parser)]
#[command(name = "consistency")]
struct Args {
    /// How long in all, shared by the faults; at least 6 s each.
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// Names separated by commas, or `all`. Without this and --for a short form with a few.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Two faults at a time: each of `--faults` with one of the others, drawn by lot.
    #[arg(long)]
    two: bool,
    /// Draws the same choices again.
    #[arg(long)]
    seed: Option<u64>,
    /// Reads per second, all replicas together.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Names of tests to run, as `cargo test` passes them on.
    #[arg(hide = true)]
    filters: Vec<String>,
    #[arg(long, hide = true)]
    list: bool,
    /// Flags of the usual test harness that change nothing here.
    #[arg(
        long,
        short = 'q',
        hide = true,
        alias = "exact",
        alias = "show-output",
        alias = "include-ignored",
        alias = "quiet"
    )]
    nocapture: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true, alias = "format", alias = "color", alias = "skip")]
    test_threads: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        say("consistency: test");
        return ExitCode::SUCCESS;
    }
    let wanted = args.filters.is_empty() || args.filters.iter().any(|filter| "consistency".contains(filter));
    if args.ignored || !wanted {
        say("0 passed, 0 failed");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = run(&args) => outcome,
                stopped = stopped() => stopped.map(|()| ExitCode::from(130)),
            }
        })
    });
    outcome.unwrap_or_else(|error| {
        say(format_args!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Ctrl-C or `kill`; what runs is dropped, and ends with that.
async fn stopped() -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    say("stopped");
    Ok(())
}

/// How long, and which faults go on together.
fn plan(args: &Args, random: &mut StdRng) -> anyhow::Result<(Duration, Vec<Vec<Fault>>)> {
    if args.faults.is_empty() && args.length.is_none() {
        return Ok((SHORT.0, SHORT.1.iter().map(|faults| faults.to_vec()).collect()));
    }
    let length = args.length.unwrap_or(Duration::from_secs(180));
    let faults = if args.faults.is_empty() || args.faults.iter().any(|name| name == "all") {
        Fault::value_variants().to_vec()
    } else {
        args.faults.iter().map(|name| parse(name)).collect::<anyhow::Result<_>>()?
    };
    let together = |fault: &Fault| {
        let others: Vec<Fault> = faults.iter().copied().filter(|other| fault.goes_with(*other)).collect();
        let other = (args.two && !others.is_empty()).then(|| others[random.random_range(0..others.len())]);
        [Some(*fault), other].into_iter().flatten().collect()
    };
    Ok((length, faults.iter().map(together).collect()))
}

fn parse(name: &str) -> anyhow::Result<Fault> {
    Fault::from_str(name, true).map_err(|_| anyhow::anyhow!("unknown fault {name}; there are: all, {}", names()))
}

fn name(fault: Fault) -> String {
    fault.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn joined(faults: &[Fault]) -> String {
    faults.iter().map(|fault| name(*fault)).collect::<Vec<_>>().join(" + ")
}

fn names() -> String {
    Fault::value_variants().iter().map(|fault| name(*fault)).collect::<Vec<_>>().join(", ")
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let (length, rounds) = plan(args, &mut random)?;
    let missing = |faults: &[Fault]| faults.iter().find_map(|fault| fault.missing());
    let (rounds, not_run): (Vec<_>, Vec<_>) = rounds.into_iter().partition(|faults| missing(faults).is_none());
    let slice = (length / u32::try_from(rounds.len().max(1))?).max(LEAST);
    say(format_args!("consistency: {} rounds, {slice:.0?} each, seed {seed}", rounds.len()));
    let mut world = World::start().await?;
    let addresses = world.replicas.iter().map(|replica| replica.address).collect();
    let load = Arc::new(Load::prepare(addresses, world.database_url()).await?);
    let clients = load.start(seed, args.rate);
    let (mut total, mut passed, mut failed) = (Tally::default(), 0, 0);
    heading();
    for faults in rounds {
        load.judge().take();
        let outcome = phase(&faults, &mut world, &load, &mut random, slice).await;
        let (tally, cases) = load.judge().take();
        let name = joined(&faults);
        row(&name, &tally);
        report::cases(&name, seed, &cases);
        let too_little = tally.reads < 100 || tally.writes < 10;
        if let Err(error) = &outcome {
            say(format_args!("{name} failed: {error:#}"));
        } else if too_little {
            say(format_args!("{name} failed: too few requests were answered to tell anything"));
        }
        let good = outcome.is_ok() && tally.violations == 0 && !too_little;
        (passed, failed) = if good { (passed + 1, failed) } else { (passed, failed + 1) };
        total.add(&tally);
        if outcome.is_err() {
            say("what follows would start from a broken world: stopped");
            break;
        }
    }
    drop(clients);
    row("total", &total);
    say(report::LEGEND);
    for faults in &not_run {
        say(format_args!("not run: {} ({})", joined(faults), missing(faults).unwrap_or_default()));
    }
    let verdict = if failed == 0 { "the promise held" } else { "THE PROMISE DID NOT HOLD" };
    say(format_args!("{verdict}; seed {seed}\n{passed} passed, {failed} failed"));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Calm, fault, recovery, as often as they fit.
async fn phase(
    faults: &[Fault],
    world: &mut World,
    load: &Load,
    random: &mut StdRng,
    slice: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + slice;
    let (calm, recovery) = (Duration::from_millis(500), Duration::from_millis(2500));
    loop {
        sleep(calm).await;
        let left = end.saturating_duration_since(Instant::now() + recovery);
        // Now and then the longest, which is longer than the bound.
        let length = if random.random_ratio(1, 2) { LONGEST } else { LONGEST.mul_f64(random.random_range(0.05..1.0)) };
        inflict(faults, world, load, random, length.min(left)).await?;
        sleep(recovery).await;
        for number in 0..world.replicas.len() {
            world.ready(number).await?;
        }
        if Instant::now() + calm + recovery >= end {
            return Ok(());
        }
    }
}
