//! The history checker: three replicas of the service, clients that write and read all the time, faults one after the
//! other, and a judge who knows every write and looks at every answer. `cargo dev consistency --help` tells more.
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

use faults::Fault;
use judge::Tally;
use load::Load;
use report::{heading, row, say};
use world::World;

/// What a plain `cargo test` runs: long enough for an outage that outlasts its bound.
const SHORT: (Duration, [Fault; 3]) =
    (Duration::from_secs(27), [Fault::ReplicaBlackholed, Fault::ConnectionsCut, Fault::ReplicaKilled]);
/// Each fault gets at least this long.
const LEAST: Duration = Duration::from_secs(6);
/// A fault that lasts longer shows nothing new: the longest bound is 5 s.
const LONGEST: Duration = Duration::from_secs(8);

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

/// How long, and which faults.
fn plan(args: &Args) -> anyhow::Result<(Duration, Vec<Fault>)> {
    if args.faults.is_empty() && args.length.is_none() {
        return Ok((SHORT.0, SHORT.1.to_vec()));
    }
    let length = args.length.unwrap_or(Duration::from_secs(120));
    if args.faults.is_empty() || args.faults.iter().any(|name| name == "all") {
        return Ok((length, Fault::value_variants().to_vec()));
    }
    let parse = |name: &String| {
        Fault::from_str(name, true).map_err(|_| anyhow::anyhow!("unknown fault {name}; there are: all, {}", names()))
    };
    Ok((length, args.faults.iter().map(parse).collect::<anyhow::Result<_>>()?))
}

fn name(fault: Fault) -> String {
    fault.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn names() -> String {
    Fault::value_variants().iter().map(|fault| name(*fault)).collect::<Vec<_>>().join(", ")
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (length, faults) = plan(args)?;
    let (faults, missing): (Vec<Fault>, Vec<Fault>) = faults.into_iter().partition(|fault| fault.missing().is_none());
    let slice = (length / u32::try_from(faults.len().max(1))?).max(LEAST);
    let seed = args.seed.unwrap_or_else(rand::random);
    say(format_args!("consistency: {} faults, {slice:.0?} each, seed {seed}", faults.len()));
    let mut world = World::start().await?;
    let load = Arc::new(Load::prepare(world.replicas.iter().map(|replica| replica.address).collect()).await?);
    let clients = load.start(seed, args.rate, world.database_url());
    let mut random = StdRng::seed_from_u64(seed);
    let (mut total, mut passed, mut failed) = (Tally::default(), 0, 0);
    heading();
    for fault in faults {
        load.judge().take();
        let outcome = phase(fault, &mut world, &load, &mut random, slice).await;
        let (tally, cases) = load.judge().take();
        let name = name(fault);
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
    for fault in &missing {
        say(format_args!("not run: {} ({})", name(*fault), fault.missing().unwrap_or_default()));
    }
    let verdict = if failed == 0 { "the promise held" } else { "THE PROMISE DID NOT HOLD" };
    say(format_args!("{verdict}; seed {seed}\n{passed} passed, {failed} failed"));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Calm, fault, recovery, as often as they fit.
async fn phase(
    fault: Fault,
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
        // Now and then the longest, which is longer than any bound.
        let length = if random.random_ratio(1, 2) { LONGEST } else { LONGEST.mul_f64(random.random_range(0.05..1.0)) };
        fault.inflict(world, load, random, length.min(left)).await?;
        sleep(recovery).await;
        for number in 0..world.replicas.len() {
            world.ready(number).await?;
        }
        if Instant::now() + calm + recovery >= end {
            return Ok(());
        }
    }
}
