//! What is done to the replicas and their servers, one fault at a time.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use devkit::{Fault as Net, wait_until};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::judge::model::REPLICAS;
use crate::load::Load;
use crate::world::{Replica, World};

/// The stream that the replicas read invalidations from.
const BUS: &str = concat!(env!("CARGO_PKG_NAME"), ":bus");
/// Where Debian and others keep libfaketime.
const FAKETIME: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

/// A fault; its name is that of the command line and the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Nothing goes wrong.
    Nothing,
    /// Redis stops (SIGSTOP), connections stay open and silent.
    RedisFrozen,
    /// Redis is killed and stays away for a while; it returns empty.
    RedisKilled,
    /// Redis is killed and at once started again, empty.
    RedisRestarted,
    /// Every answer of Redis is late, not late enough to be given up.
    RedisSlow,
    /// FLUSHALL, again and again.
    Flushall,
    /// The bus is trimmed to nothing while a replica is away from it for a moment.
    BusTrimmed,
    /// Connections to Redis are cut, by Redis (CLIENT KILL) or on the way (RST).
    ConnectionsCut,
    /// One replica's packets to Redis vanish.
    ReplicaBlackholed,
    /// One replica's connections to Redis fall silent for good, new ones work.
    HalfOpen,
    /// One replica stops (SIGSTOP) and goes on later.
    ReplicaFrozen,
    /// One replica is killed (SIGKILL) while it writes, and started again.
    ReplicaKilled,
    /// Postgres is killed and started again.
    PostgresRestarted,
    /// Connections to Postgres are cut, in the midst of commits too.
    PostgresCut,
    /// Every answer of Postgres is late, differently for each replica.
    PostgresSlow,
    /// One replica's wall clock jumps by an hour, both ways.
    ClockShifted,
}

impl Fault {
    /// Why it can't be had on this machine.
    pub fn missing(self) -> Option<&'static str> {
        let needs_faketime = self == Self::ClockShifted && faketime().is_none();
        needs_faketime.then_some("libfaketime isn't installed (Debian: apt-get install faketime)")
    }

    /// Does it for about that long, and puts everything right again.
    pub async fn inflict(
        self,
        world: &mut World,
        load: &Load,
        random: &mut StdRng,
        length: Duration,
    ) -> anyhow::Result<()> {
        let one = random.random_range(0..REPLICAS);
        let end = Instant::now() + length;
        match self {
            Self::Nothing => sleep(length).await,
            Self::RedisFrozen => {
                away(load, 0..REPLICAS);
                world.redis.freeze()?;
                sleep(length).await;
                world.redis.thaw()?;
                back(load, 0..REPLICAS);
            }
            Self::RedisKilled | Self::RedisRestarted => {
                away(load, 0..REPLICAS);
                world.redis.stop().await?;
                if self == Self::RedisKilled {
                    sleep(length).await;
                }
                world.redis.start_again().await?;
                back(load, 0..REPLICAS);
            }
            Self::RedisSlow => {
                for replica in &world.replicas {
                    replica.to_redis.set(Net::Latency(millis(random, 5, 60)));
                }
                sleep(length).await;
                world.replicas.iter().for_each(|replica| replica.to_redis.set(Net::None));
            }
            Self::Flushall => {
                while Instant::now() < end {
                    order(world, redis::cmd("FLUSHALL")).await?;
                    sleep(millis(random, 20, 1500)).await;
                }
            }
            Self::BusTrimmed => {
                while Instant::now() < end {
                    world.replicas[random.random_range(0..REPLICAS)].to_redis.cut();
                    sleep(millis(random, 0, 30)).await;
                    let mut trim = redis::cmd("XTRIM");
                    trim.arg(BUS).arg("MAXLEN").arg(0);
                    order(world, trim).await?;
                    sleep(millis(random, 20, 1500)).await;
                }
            }
            Self::ConnectionsCut => {
                while Instant::now() < end {
                    match random.random_range(0..=REPLICAS) {
                        REPLICAS => {
                            let mut kill = redis::cmd("CLIENT");
                            kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
                            order(world, kill).await?;
                        }
                        replica => world.replicas[replica].to_redis.cut(),
                    }
                    sleep(millis(random, 20, 1500)).await;
                }
            }
            Self::ReplicaBlackholed => {
                away(load, one..one + 1);
                world.replicas[one].to_redis.set(Net::BlackHole);
                sleep(length).await;
                world.replicas[one].to_redis.set(Net::None);
                back(load, one..one + 1);
            }
            Self::HalfOpen => {
                away(load, one..one + 1);
                world.replicas[one].to_redis.set(Net::HalfOpen);
                // Until the replica has found out.
                sleep(Duration::from_secs(1)).await;
                back(load, one..one + 1);
                sleep(end.saturating_duration_since(Instant::now())).await;
                world.replicas[one].to_redis.set(Net::None);
            }
            Self::ReplicaFrozen => {
                linger(&world.replicas[one], random).await;
                world.replicas[one].signal("STOP")?;
                sleep(length).await;
                world.replicas[one].signal("CONT")?;
            }
            Self::ReplicaKilled => {
                linger(&world.replicas[one], random).await;
                world.kill(one);
                sleep(length.min(millis(random, 0, 2000))).await;
                world.run(one, &[]).await?;
            }
            Self::PostgresRestarted => {
                world.postgres.kill().await?;
                sleep(length.min(millis(random, 0, 3000))).await;
                world.postgres.restart().await?;
            }
            Self::PostgresCut => {
                world.replicas.iter().for_each(|replica| replica.to_postgres.set(Net::Latency(millis(random, 0, 40))));
                while Instant::now() < end {
                    world.replicas[random.random_range(0..REPLICAS)].to_postgres.cut();
                    sleep(millis(random, 20, 800)).await;
                }
                world.replicas.iter().for_each(|replica| replica.to_postgres.set(Net::None));
            }
            Self::PostgresSlow => {
                while Instant::now() < end {
                    for replica in &world.replicas {
                        replica.to_postgres.set(Net::Latency(millis(random, 0, 150)));
                    }
                    sleep(millis(random, 300, 1500)).await;
                }
                world.replicas.iter().for_each(|replica| replica.to_postgres.set(Net::None));
            }
            Self::ClockShifted => shift_clock(world, one, length).await?,
        }
        Ok(())
    }
}

fn millis(random: &mut StdRng, least: u64, most: u64) -> Duration {
    Duration::from_millis(random.random_range(least..=most))
}

/// Slows a replica's loads and writes down, so that what is done to it next finds it in the midst of some: before the
/// commit and after it, before it tells Redis and after. Ends by itself.
async fn linger(replica: &Replica, random: &mut StdRng) {
    let way = if random.random_ratio(1, 2) { &replica.to_postgres } else { &replica.to_redis };
    way.set(Net::Latency(millis(random, 10, 80)));
    sleep(Duration::from_millis(200)).await;
    way.set(Net::None);
}

fn away(load: &Load, replicas: std::ops::Range<usize>) {
    let now = load.now();
    replicas.for_each(|replica| load.judge().outage_begins(replica, now));
}

fn back(load: &Load, replicas: std::ops::Range<usize>) {
    let now = load.now();
    replicas.for_each(|replica| load.judge().outage_ends(replica, now));
}

/// A command to Redis itself, not through a proxy.
async fn order(world: &World, command: redis::Cmd) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(world.redis.url())?.get_multiplexed_async_connection().await?;
    let _: redis::Value = command.query_async(&mut connection).await?;
    Ok(())
}

fn faketime() -> Option<&'static str> {
    FAKETIME.into_iter().find(|library| Path::new(library).is_file())
}

/// The replica runs on a clock of its own for a while: right, an hour ahead, an hour behind.
async fn shift_clock(world: &mut World, one: usize, length: Duration) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("shift");
    std::fs::write(&file, "+0")?;
    let path = file.to_str().context("a path that isn't UTF-8")?;
    let library = faketime().context("libfaketime is gone")?;
    let env = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", path),
        ("FAKETIME_NO_CACHE", "1"),
        // Wall clocks jump; monotonic ones don't.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    world.run(one, &env).await?;
    for (shift, seconds) in [("+3600", 3600.0), ("-3600", -3600.0), ("+0", 0.0)] {
        std::fs::write(&file, shift)?;
        // /health shows the time of its latest check.
        let shifted = async || ahead(world, one).await.is_ok_and(|ahead| (ahead - seconds).abs() < 60.0);
        wait_until(&format!("the clock is {seconds} s ahead"), Duration::from_secs(10), shifted).await?;
        sleep(length / 3).await;
    }
    world.run(one, &[]).await
}

/// How far a replica's wall clock is ahead of another's, by their latest health checks.
async fn ahead(world: &World, number: usize) -> anyhow::Result<f64> {
    let mut clocks = [0.0; 2];
    for (clock, number) in clocks.iter_mut().zip([number, (number + 1) % REPLICAS]) {
        let answer = Client::new(world.replicas[number].address).get("/health", 0).await?;
        let health: serde_json::Value = serde_json::from_slice(&answer.body)?;
        *clock = health["timestamp"].as_f64().context("/health without a timestamp")?;
    }
    Ok(clocks[0] - clocks[1])
}
