//! What is done to the replicas and their servers: one fault at a time, or two that befall different parts.

mod clock;
mod postgres;
mod redis;
mod ways;

use std::time::Duration;

use anyhow::Context;
use devkit::{Fault as Net, FaultProxy};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

use self::clock::Clock;
use self::postgres::Kept;
use self::redis::OtherRedis;
use crate::judge::model::REPLICAS;
use crate::load::Load;
use crate::world::World;

/// A fault; its name is that of the command line and the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Nothing goes wrong.
    Nothing,
    /// Redis stops (SIGSTOP), connections stay open and silent.
    RedisFrozen,
    /// Redis is killed and stays away for a while; it returns empty.
    RedisKilled,
    /// Redis is killed and at once started again, empty, again and again.
    RedisRestarted,
    /// Redis answers reads and refuses every write, for want of replicas of its own.
    RedisRefusesWrites,
    /// Redis is full and evicts nothing.
    RedisFull,
    /// Redis is full and evicts what has a deadline.
    RedisEvicts,
    /// Rights are taken from the user and given back, one kind after the other.
    RedisRights,
    /// Keys are overwritten by bytes and types that mean nothing.
    RedisOverwritten,
    /// FLUSHALL, again and again.
    Flushall,
    /// The bus is trimmed to nothing while a replica is away from it for a moment.
    BusTrimmed,
    /// The replicas find a Redis Cluster without slots, which refuses everything.
    RedisCluster,
    /// Redis fails over to its replica, and one replica of the service stays with the former primary.
    RedisIsolated,
    /// The replicas move to another Redis, which is empty, one after the other.
    RedisMoved,
    /// Every answer of Redis is late, not late enough to be given up.
    RedisSlow,
    /// Connections to Redis are reset.
    ConnectionsCut,
    /// One replica's packets to Redis vanish.
    ReplicaBlackholed,
    /// One replica's connections to Redis fall silent for good, new ones work.
    HalfOpen,
    /// One replica stops (SIGSTOP) and goes on later.
    ReplicaFrozen,
    /// One replica is killed (SIGKILL) while it writes, and started again.
    ReplicaKilled,
    /// One replica's wall clock jumps by an hour, both ways.
    ClockShifted,
    /// Postgres is killed and started again, again and again.
    PostgresRestarted,
    /// Postgres is killed and stays away for a while.
    PostgresKilled,
    /// Postgres is killed, and one without its last commits takes its place, on a new timeline.
    PostgresPromoted,
    /// The same on the old timeline, as when its files are copied back.
    PostgresSetBack,
    /// Every user is changed by one statement, again and again.
    MassUpdate,
    /// Users are replaced in one transaction, and the sequence of versions set back, as a restored dump does.
    DumpRestored,
    /// Connections to Postgres are cut, in the midst of commits too.
    PostgresCut,
    /// Every answer of Postgres is late, differently for each replica.
    PostgresSlow,
    /// One replica's packets to Postgres vanish.
    ReplicaBlind,
}

/// What a fault befalls; two at a time befall different parts. Those further down begin later and end earlier, so that
/// a replica is started while what it needs is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Replica,
    WaysToRedis,
    WaysToPostgres,
    Redis,
    Postgres,
}

/// What goes on with a fault that has begun.
struct Inflicted {
    fault: Fault,
    /// The replica that it befalls, if it is about one.
    one: usize,
    state: State,
}

/// What is needed to end a fault.
enum State {
    Nothing,
    Clock(Clock),
    OtherRedis(OtherRedis),
    Kept(Kept),
}

impl Fault {
    /// Why it can't be had on this machine.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Self::ClockShifted if clock::faketime().is_none() => {
                Some("libfaketime isn't installed (Debian: apt-get install faketime)")
            }
            Self::RedisCluster if redis::program().is_none() => Some("there is no redis-server on this machine"),
            _ => None,
        }
    }

    /// Whether both can go on at once.
    pub fn goes_with(self, other: Self) -> bool {
        self != Self::Nothing && other != Self::Nothing && self.part() != other.part()
    }

    fn part(self) -> Part {
        match self {
            Self::Nothing | Self::ReplicaFrozen | Self::ReplicaKilled | Self::ClockShifted => Part::Replica,
            Self::RedisSlow | Self::ConnectionsCut | Self::ReplicaBlackholed | Self::HalfOpen => Part::WaysToRedis,
            Self::PostgresCut | Self::PostgresSlow | Self::ReplicaBlind => Part::WaysToPostgres,
            Self::RedisFrozen
            | Self::RedisKilled
            | Self::RedisRestarted
            | Self::RedisRefusesWrites
            | Self::RedisFull
            | Self::RedisEvicts
            | Self::RedisRights
            | Self::RedisOverwritten
            | Self::Flushall
            | Self::BusTrimmed
            | Self::RedisCluster
            | Self::RedisIsolated
            | Self::RedisMoved => Part::Redis,
            Self::PostgresRestarted
            | Self::PostgresKilled
            | Self::PostgresPromoted
            | Self::PostgresSetBack
            | Self::MassUpdate
            | Self::DumpRestored => Part::Postgres,
        }
    }
}

/// Does these for about that long, and puts everything right again.
pub async fn inflict(
    faults: &[Fault],
    world: &mut World,
    load: &Load,
    random: &mut StdRng,
    length: Duration,
) -> anyhow::Result<()> {
    let mut faults = faults.to_vec();
    faults.sort_by_key(|fault| fault.part());
    let mut begun = Vec::new();
    for fault in faults {
        begun.push(Inflicted::begin(fault, world, load, random).await.with_context(|| format!("begin {fault:?}"))?);
    }
    let end = tokio::time::Instant::now() + length;
    while tokio::time::Instant::now() < end {
        sleep(millis(random, 20, 800)).await;
        for one in &mut begun {
            one.go_on(world, load, random).await.with_context(|| format!("go on with {:?}", one.fault))?;
        }
    }
    while let Some(last) = begun.pop() {
        let fault = last.fault;
        last.end(world, load).await.with_context(|| format!("end {fault:?}"))?;
    }
    Ok(())
}

impl Inflicted {
    async fn begin(fault: Fault, world: &mut World, load: &Load, random: &mut StdRng) -> anyhow::Result<Self> {
        let one = random.random_range(0..REPLICAS);
        let mut state = State::Nothing;
        match fault {
            Fault::Nothing
            | Fault::RedisRestarted
            | Fault::RedisRights
            | Fault::RedisOverwritten
            | Fault::Flushall
            | Fault::BusTrimmed
            | Fault::ConnectionsCut
            | Fault::PostgresRestarted
            | Fault::MassUpdate
            | Fault::DumpRestored => {}
            Fault::RedisFrozen => world.redis.freeze()?,
            Fault::RedisKilled => world.redis.stop().await?,
            Fault::RedisRefusesWrites => redis::set(world, "min-replicas-to-write", "1").await?,
            Fault::RedisFull => redis::let_refuse(world).await?,
            Fault::RedisEvicts => redis::let_evict(world).await?,
            Fault::RedisCluster => state = State::OtherRedis(OtherRedis::cluster(world).await?),
            Fault::RedisIsolated => state = State::OtherRedis(OtherRedis::promoted(world, one).await?),
            Fault::RedisMoved => state = State::OtherRedis(OtherRedis::empty().await?),
            Fault::RedisSlow => ways::slow_to_redis(world, random),
            Fault::ReplicaBlackholed => world.replicas[one].to_redis.set(Net::BlackHole),
            Fault::HalfOpen => world.replicas[one].to_redis.set(Net::HalfOpen),
            Fault::ReplicaFrozen => {
                ways::linger(&world.replicas[one], random).await;
                world.replicas[one].signal("STOP")?;
            }
            Fault::ReplicaKilled => {
                ways::linger(&world.replicas[one], random).await;
                world.kill(one);
            }
            Fault::ClockShifted => state = State::Clock(Clock::begin(world, one).await?),
            Fault::PostgresKilled => postgres::kill(world, load).await?,
            Fault::PostgresPromoted | Fault::PostgresSetBack => {
                state = State::Kept(Kept::take(world, load).await?);
            }
            Fault::PostgresCut | Fault::PostgresSlow => ways::slow_to_postgres(world, random, 40),
            Fault::ReplicaBlind => world.replicas[one].to_postgres.set(Net::BlackHole),
        }
        Ok(Self { fault, one, state })
    }

    /// What is done again and again while it lasts.
    async fn go_on(&mut self, world: &mut World, load: &Load, random: &mut StdRng) -> anyhow::Result<()> {
        match (&self.fault, &mut self.state) {
            (Fault::RedisRestarted, _) => world.redis.start_again().await?,
            (Fault::RedisEvicts, _) => redis::fill(world, random).await?,
            (Fault::RedisRights, _) => redis::take_rights(world, random).await?,
            (Fault::RedisOverwritten, _) => redis::overwrite(world, random).await?,
            (Fault::Flushall, _) => redis::order(world, ::redis::cmd("FLUSHALL")).await?,
            (Fault::BusTrimmed, _) => redis::trim_bus(world, random).await?,
            (Fault::RedisMoved, State::OtherRedis(other)) => other.move_one(world),
            (Fault::ConnectionsCut, _) => world.replicas[random.random_range(0..REPLICAS)].to_redis.cut(),
            (Fault::PostgresCut, _) => world.replicas[random.random_range(0..REPLICAS)].to_postgres.cut(),
            (Fault::PostgresSlow, _) => ways::slow_to_postgres(world, random, 150),
            (Fault::PostgresRestarted, _) => {
                postgres::kill(world, load).await?;
                sleep(millis(random, 0, 1000)).await;
                postgres::restart(world, load).await?;
            }
            (Fault::ClockShifted, State::Clock(clock)) => clock.shift(random)?,
            // Another fault may stand between us and Postgres.
            (Fault::MassUpdate, _) => drop(load.change_all().await),
            (Fault::DumpRestored, _) => drop(load.restore().await),
            _ => {}
        }
        Ok(())
    }

    async fn end(self, world: &mut World, load: &Load) -> anyhow::Result<()> {
        match (self.fault, self.state) {
            (Fault::RedisFrozen, _) => world.redis.thaw()?,
            (Fault::RedisKilled, _) => world.redis.start_again().await?,
            (Fault::RedisRefusesWrites, _) => redis::set(world, "min-replicas-to-write", "0").await?,
            (Fault::RedisFull | Fault::RedisEvicts, _) => redis::set(world, "maxmemory", "0").await?,
            (Fault::RedisRights, _) => redis::give_rights(world).await?,
            (_, State::OtherRedis(other)) => other.end(world),
            (_, State::Clock(clock)) => clock.end(world)?,
            (fault, State::Kept(kept)) => kept.put_back(world, load, fault == Fault::PostgresPromoted).await?,
            (Fault::RedisSlow | Fault::ReplicaBlackholed | Fault::HalfOpen, _) => {
                world.replicas.iter().for_each(|replica| replica.to_redis.set(Net::None));
            }
            (Fault::PostgresCut | Fault::PostgresSlow | Fault::ReplicaBlind, _) => {
                world.replicas.iter().for_each(|replica| replica.to_postgres.set(Net::None));
            }
            (Fault::ReplicaFrozen, _) => world.replicas[self.one].signal("CONT")?,
            (Fault::ReplicaKilled, _) => world.run(self.one, &[])?,
            (Fault::PostgresKilled, _) => postgres::restart(world, load).await?,
            _ => {}
        }
        Ok(())
    }
}

fn millis(random: &mut StdRng, least: u64, most: u64) -> Duration {
    Duration::from_millis(random.random_range(least..=most))
}

/// Lets a way lead elsewhere from now on, for connections that are open too.
fn lead(way: &FaultProxy, target: std::net::SocketAddr) {
    way.forward_to(target);
    way.cut();
}
