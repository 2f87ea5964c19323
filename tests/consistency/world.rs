//! Three replicas of the service, a Redis and a Postgres, and a proxy on each way between them and on our own.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use devkit::{FaultProxy, Postgres, Redis, free_port, wait_until};

use crate::client::Client;
use crate::judge::model::REPLICAS;

/// The token that the replicas accept.
pub const TOKEN: &str = "consistency";
const DATABASE: &str = "postgres";
/// Generous: it bounds what hangs, and measures nothing.
const START: Duration = Duration::from_secs(30);

/// Everything that runs. Ends with the value.
pub struct World {
    pub replicas: Vec<Replica>,
    pub postgres: Postgres,
    pub redis: Redis,
    /// Our own way to Postgres.
    pub to_postgres: FaultProxy,
    guardian: Guardian,
}

/// One process of the service, and its ways to Redis and Postgres.
pub struct Replica {
    pub address: SocketAddr,
    pub to_redis: FaultProxy,
    pub to_postgres: FaultProxy,
    child: Option<Child>,
    number: usize,
}

impl World {
    /// Starts everything and waits until it is ready.
    pub async fn start() -> anyhow::Result<Self> {
        let (postgres, redis) = tokio::try_join!(Postgres::start(), Redis::start())?;
        let migrate = program().arg("migrate").env("DATABASE_URL", postgres.url(DATABASE)).output()?;
        ensure!(migrate.status.success(), "migrate: {}", String::from_utf8_lossy(&migrate.stderr));
        let to_postgres = FaultProxy::start(postgres.address()).await?;
        let mut world = Self { replicas: Vec::new(), postgres, redis, to_postgres, guardian: Guardian::start()? };
        for number in 0..REPLICAS {
            let replica = Replica {
                address: (Ipv4Addr::LOCALHOST, free_port()?).into(),
                to_redis: FaultProxy::start(world.redis.address()).await?,
                to_postgres: FaultProxy::start(world.postgres.address()).await?,
                child: None,
                number,
            };
            world.replicas.push(replica);
            world.run(number, &[])?;
            world.ready(number).await?;
        }
        Ok(world)
    }

    /// The database, by our own way.
    pub fn database_url(&self) -> String {
        self.postgres.url_through(self.to_postgres.port(), DATABASE)
    }

    /// The database, by no proxy.
    pub fn direct_url(&self) -> String {
        self.postgres.url(DATABASE)
    }

    /// Every way to Postgres.
    pub fn ways_to_postgres(&self) -> impl Iterator<Item = &FaultProxy> {
        self.replicas.iter().map(|replica| &replica.to_postgres).chain([&self.to_postgres])
    }

    /// Starts a replica, in place of one that runs.
    pub fn run(&mut self, number: usize, env: &[(&str, &str)]) -> anyhow::Result<()> {
        self.kill(number);
        let replica = &mut self.replicas[number];
        let mut command = program();
        command.env("PORT", replica.address.port().to_string()).env("BIND_ADDRESS", "127.0.0.1");
        command.env("API_TOKEN", TOKEN).env("WORKERS", "2").env("DRAIN_DELAY", "0s");
        command.env("DATABASE_POOL_MIN", "1").env("DATABASE_POOL_MAX", "8").env("DATABASE_COMMAND_TIMEOUT", "5s");
        command.env("DATABASE_URL", self.postgres.url_through(replica.to_postgres.port(), DATABASE));
        command.env("REDIS_URL", format!("redis://{}", replica.to_redis.addr()));
        command.env("LOG_LEVEL", "error,tiered_cache=info").envs(env.iter().copied());
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("consistency-{}.log", number + 1));
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        replica.child = Some(command.spawn().context("can't start the service")?);
        self.guard()
    }

    /// Waits until a replica is ready.
    pub async fn ready(&self, number: usize) -> anyhow::Result<()> {
        let replica = &self.replicas[number];
        let mut client = Client::new(replica.address);
        let ready = async || client.get("/health/ready", 0).await.is_ok_and(|answer| answer.status == 200);
        wait_until(&format!("replica {} is ready", number + 1), START, ready).await
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.replicas[number].child.take() {
            // One that ended by itself is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn guard(&mut self) -> anyhow::Result<()> {
        let children = self.replicas.iter().filter_map(|replica| replica.child.as_ref());
        let ids: Vec<String> = children.map(|child| child.id().to_string()).collect();
        self.guardian.watch(&ids)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        (0..self.replicas.len()).for_each(|number| self.kill(number));
        let _ = self.guard();
    }
}

impl Replica {
    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let child = self.child.as_ref().with_context(|| format!("replica {} isn't running", self.number + 1))?;
        let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status()?;
        ensure!(status.success(), "can't send {name} to replica {}", self.number + 1);
        Ok(())
    }
}

/// The program under test with nothing of the caller's settings.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
    command.env_clear();
    command
}

/// Ends the replicas when the checker itself is killed: a shell that reads their ids from a pipe that only we hold.
struct Guardian(Child);

const GUARDIAN: &str =
    "trap '' HUP INT TERM; ids=; while read -r line; do ids=$line; done; [ -z \"$ids\" ] || kill -s KILL $ids";

impl Guardian {
    fn start() -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.args(["-c", GUARDIAN]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.process_group(0).spawn().context("can't start sh, which guards the replicas")?))
    }

    /// From now on these, and no others.
    fn watch(&mut self, ids: &[String]) -> anyhow::Result<()> {
        let pipe = self.0.stdin.as_mut().context("the guardian's pipe is closed")?;
        Ok(writeln!(pipe, "{}", ids.join(" "))?)
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.0.stdin = None;
        let _ = self.0.wait();
    }
}
