//! The tier that all replicas of a [`tiered_cache`] share, in Redis, on connections that survive a Redis that misbehaves.
//! The keys and what each script does stand in the cache's DESIGN.md.
//!
//! redis-rs's own `ConnectionManager` never reconnects from a peer that went silent: a response timeout isn't
//! an error to it. Here every command has a deadline, a watchdog replaces a connection that fell silent, and
//! while there is no connection commands fail at once instead of queueing.

mod bus;
mod changes;
mod connection;
mod error;
mod remote;
mod values;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, ScriptInvocation};
use tiered_cache::{Bus, Remote, RemoteError};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bus::RedisBus;
use crate::connection::{Dialer, Shared};
use crate::remote::RedisRemote;

/// Where Redis is and how long to wait for it.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS.
    pub url: String,
    /// Most connections for commands; the cache's bus has one more of its own.
    pub connections: usize,
    /// How long a connection may take to be made, its greeting included.
    pub connect_timeout: Duration,
    /// How long a command may take.
    pub timeout: Duration,
}

impl RedisConfig {
    /// Four connections, one second to connect, 100 ms per command.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections: 4,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_millis(100),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL holds the password.
        f.debug_struct("RedisConfig").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// The URL isn't one of Redis.
#[derive(Debug, thiserror::Error)]
#[error("not a Redis URL: {0}")]
pub struct RedisConfigError(String);

/// Multiplexed connections to one Redis, made and replaced in the background. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
    next: Arc<AtomicUsize>,
    /// Stops the background tasks with the last clone.
    _stop: Arc<DropGuard>,
}

impl Redis {
    /// Starts connecting in the background, on `runtime`. Never blocks and never fails for a Redis that is down.
    #[expect(clippy::needless_pass_by_value, reason = "an owned handle, as tokio's own constructors take it")]
    pub fn new(config: RedisConfig, runtime: Handle) -> Result<Self, RedisConfigError> {
        let stop = CancellationToken::new();
        let connections = config.connections.max(1);
        let shared = Arc::new(Shared::new(Dialer::new(&config)?, connections, config.timeout));
        for slot in 0..connections {
            let work = Arc::clone(&shared).supervise(slot);
            runtime.spawn(stop.clone().run_until_cancelled_owned(work));
        }
        Ok(Self { shared, next: Arc::default(), _stop: Arc::new(stop.drop_guard()) })
    }

    /// The shared tier of a cache and its bus, in keys that begin with `{namespace}:`.
    pub fn tier(&self, namespace: &str) -> (Arc<dyn Remote>, Box<dyn Bus>) {
        let remote = RedisRemote::new(self.clone(), namespace);
        let bus = RedisBus::new(&self.shared.dialer, &remote);
        (Arc::new(remote), Box::new(bus))
    }

    /// Sends one command.
    /// Fails at once when there is no connection, and after the timeout when there is no answer.
    pub async fn query<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, RemoteError> {
        self.with(self.shared.timeout, async move |mut to| cmd.query_async(&mut to).await).await
    }

    /// Sends several commands at once.
    pub(crate) async fn query_pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, RemoteError> {
        self.with(self.shared.timeout, async move |mut to| pipeline.query_async(&mut to).await).await
    }

    /// Runs a script by its hash, sending its text where Redis doesn't know it. A node of a cluster that says which other
    /// one has the keys is left for that.
    pub(crate) async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RemoteError> {
        let run = async |mut to| {
            let outcome = script.invoke_async(&mut to).await;
            if let Err(error) = &outcome
                && error.code() == Some("MOVED")
                && let Some((node, _)) = error.redirect_node()
            {
                self.shared.turn_to(node);
            }
            outcome
        };
        self.with(self.shared.timeout, run).await
    }

    /// Asks for a sign of life.
    pub async fn ping(&self, within: Duration) -> Result<(), RemoteError> {
        self.with(within, async move |mut to| redis::cmd("PING").exec_async(&mut to).await).await
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.open()
    }

    async fn with<T>(
        &self,
        within: Duration,
        send: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, RemoteError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let picked = self.shared.pick(first).ok_or_else(|| self.shared.unavailable())?;
        match tokio::time::timeout(within, send(picked.connection())).await {
            Ok(outcome) => picked.judge(outcome),
            Err(_) => {
                picked.timed_out();
                Err(RemoteError::Timeout)
            }
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("connections", &self.connections()).finish_non_exhaustive()
    }
}
