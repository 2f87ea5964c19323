//! What is done to Redis, and the servers that come in its place.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use devkit::{Redis, find, free_port, wait_until};
use rand::RngExt;
use rand::rngs::StdRng;
use redis::{Cmd, FromRedisValue, Value, cmd};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{lead, millis};
use crate::judge::model::REPLICAS;
use crate::world::World;

/// Redis does it in no time, or is away by another fault.
const ANSWER: Duration = Duration::from_secs(5);
/// What the replicas need, each of which is taken from them in turn.
const RIGHTS: [&str; 8] =
    ["-@write", "-@read", "-@scripting", "-@stream", "-@sortedset", "-@pubsub", "-ping", "resetkeys"];
/// One filler, and how many at once.
const FILLER: (usize, usize) = (10_000, 60);

pub fn program() -> Option<PathBuf> {
    find("redis-server").or_else(|| find("valkey-server"))
}

/// A command to Redis itself, not through a proxy.
pub async fn order(world: &World, command: Cmd) -> anyhow::Result<()> {
    ask::<Value>(&world.redis, command).await.map(drop)
}

async fn ask<T: FromRedisValue>(redis: &Redis, command: Cmd) -> anyhow::Result<T> {
    let answer = async {
        let mut connection = redis::Client::open(redis.url())?.get_multiplexed_async_connection().await?;
        anyhow::Ok(command.query_async(&mut connection).await?)
    };
    timeout(ANSWER, answer).await.context("Redis doesn't answer")?
}

fn words(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    words.iter().for_each(|word| {
        command.arg(word);
    });
    command
}

/// CONFIG SET.
pub async fn set(world: &World, name: &str, value: &str) -> anyhow::Result<()> {
    order(world, words(&["CONFIG", "SET", name, value])).await
}

/// Leaves no room at all, and evicts nothing.
pub async fn let_refuse(world: &World) -> anyhow::Result<()> {
    set(world, "maxmemory-policy", "noeviction").await?;
    set(world, "maxmemory", "1").await
}

/// Leaves little room above what is used, and evicts what has a deadline.
pub async fn let_evict(world: &World) -> anyhow::Result<()> {
    let memory: String = ask(&world.redis, words(&["INFO", "memory"])).await?;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<u64>().ok());
    set(world, "maxmemory-policy", "volatile-lfu").await?;
    set(world, "maxmemory", &(used.context("INFO without used_memory")? + 400_000).to_string()).await
}

/// Others' values, more than there is room for.
pub async fn fill(world: &World, random: &mut StdRng) -> anyhow::Result<()> {
    let mut all = redis::pipe();
    for _ in 0..FILLER.1 {
        let key = format!("filler:{}", random.random::<u32>());
        all.cmd("SET").arg(key).arg("x".repeat(FILLER.0)).arg("EX").arg(20).ignore();
    }
    let filled = async {
        let mut connection = redis::Client::open(world.redis.url())?.get_multiplexed_async_connection().await?;
        // Full is what it is to be.
        let _: Result<Value, _> = all.query_async(&mut connection).await;
        anyhow::Ok(())
    };
    timeout(ANSWER, filled).await.context("Redis doesn't answer")?
}

pub async fn take_rights(world: &World, random: &mut StdRng) -> anyhow::Result<()> {
    give_rights(world).await?;
    order(world, words(&["ACL", "SETUSER", "default", RIGHTS[random.random_range(0..RIGHTS.len())]])).await
}

pub async fn give_rights(world: &World) -> anyhow::Result<()> {
    order(world, words(&["ACL", "SETUSER", "default", "on", "nopass", "allkeys", "allchannels", "allcommands"])).await
}

/// Some keys, also those that the cache lives by, become something else.
pub async fn overwrite(world: &World, random: &mut StdRng) -> anyhow::Result<()> {
    let keys: Vec<String> = ask(&world.redis, words(&["KEYS", "*"])).await?;
    for _ in 0..3.min(keys.len()) {
        let key = &keys[random.random_range(0..keys.len())];
        match random.random_range(0..3) {
            // At once: the replicas make some of them anew.
            0 => {
                let script = "redis.call('del', KEYS[1]) redis.call('rpush', KEYS[1], 'x')";
                order(world, words(&["EVAL", script, "1", key])).await?;
            }
            1 => order(world, words(&["SET", key, "what is this?"])).await?,
            _ => order(world, cmd("SET").arg(key).arg(b"\xff\xfe\x00\x80").clone()).await?,
        }
    }
    Ok(())
}

/// What one replica hasn't read is gone when it comes back.
pub async fn trim_bus(world: &World, random: &mut StdRng) -> anyhow::Result<()> {
    world.replicas[random.random_range(0..REPLICAS)].to_redis.cut();
    sleep(millis(random, 0, 30)).await;
    let streams: (String, Vec<String>) =
        ask(&world.redis, words(&["SCAN", "0", "COUNT", "100000", "TYPE", "stream"])).await?;
    for stream in streams.1 {
        order(world, words(&["XTRIM", &stream, "MAXLEN", "0"])).await?;
    }
    Ok(())
}

/// Another server, to which the replicas' ways lead.
pub enum OtherRedis {
    /// A Redis Cluster that has no slot; ends with the fault.
    Cluster { _process: Guarded },
    /// Takes the place of the first one, which one replica doesn't know yet.
    Promoted(Redis),
    /// Takes the place of the first one, for so many replicas already.
    Empty(Redis, usize),
}

/// A process that ends with the value.
pub struct Guarded {
    child: Child,
    _folder: TempDir,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // One that ended by itself is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OtherRedis {
    pub async fn cluster(world: &World) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program().context("redis-server is gone")?);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--cluster-enabled", "yes"]);
        let folder = tempfile::tempdir()?;
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Guarded { child: command.spawn().context("can't start redis-server")?, _folder: folder };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let listening = async || tokio::net::TcpStream::connect(address).await.is_ok();
        wait_until("the cluster listens", ANSWER, listening).await?;
        world.replicas.iter().for_each(|replica| lead(&replica.to_redis, address));
        Ok(Self::Cluster { _process: process })
    }

    /// A replica of the first one is promoted, and two replicas of the service go on with it.
    pub async fn promoted(world: &World, one: usize) -> anyhow::Result<Self> {
        let other = Redis::start().await?;
        let port = world.redis.port().to_string();
        ask::<Value>(&other, words(&["REPLICAOF", "127.0.0.1", &port])).await?;
        let up = async || {
            let info = ask::<String>(&other, words(&["INFO", "replication"])).await;
            info.is_ok_and(|info| info.contains("master_link_status:up"))
        };
        wait_until("Redis has a copy", Duration::from_secs(20), up).await?;
        ask::<Value>(&other, words(&["REPLICAOF", "NO", "ONE"])).await?;
        for (_, replica) in world.replicas.iter().enumerate().filter(|(number, _)| *number != one) {
            lead(&replica.to_redis, other.address());
        }
        Ok(Self::Promoted(other))
    }

    pub async fn empty() -> anyhow::Result<Self> {
        Ok(Self::Empty(Redis::start().await?, 0))
    }

    /// The next replica moves to it.
    pub fn move_one(&mut self, world: &World) {
        if let Self::Empty(redis, moved) = self
            && let Some(replica) = world.replicas.get(*moved)
        {
            lead(&replica.to_redis, redis.address());
            *moved += 1;
        }
    }

    /// Everybody is with the server that stays.
    pub fn end(self, world: &mut World) {
        match self {
            Self::Cluster { .. } => {}
            Self::Promoted(redis) | Self::Empty(redis, _) => world.redis = redis,
        }
        let address = world.redis.address();
        world.replicas.iter().for_each(|replica| lead(&replica.to_redis, address));
    }
}
