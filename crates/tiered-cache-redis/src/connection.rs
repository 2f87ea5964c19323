//! One connection slot: made, watched, replaced.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisError, RedisResult};
use tiered_cache::RemoteError;
use tokio::sync::Notify;

use crate::error::failed;
use crate::{RedisConfig, RedisConfigError};

/// This many timeouts in a row, on all connections together, and every connection is replaced.
const TIMEOUTS_IN_A_ROW: u32 = 3;
const PING_EVERY: Duration = Duration::from_millis(500);
const BACKOFF: Range<Duration> = Duration::from_millis(20)..Duration::from_millis(500);
/// Keepalive finds a peer that vanished without a FIN on an idle connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// The kernel gives a connection up when sent bytes stay unacknowledged this long.
const USER_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Dialer {
    configured: Client,
    /// Another node of its cluster that has the cache's hash slot.
    node: Arc<ArcSwapOption<Client>>,
    timeout: Duration,
}

impl Dialer {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, RedisConfigError> {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let tcp = tcp.set_user_timeout(USER_TIMEOUT);
        let wrong = |error: RedisError| RedisConfigError(error.category().to_owned());
        let info = config.url.as_str().into_connection_info().map_err(wrong)?.set_tcp_settings(tcp);
        let configured = Client::open(info).map_err(wrong)?;
        Ok(Self { configured, node: Arc::default(), timeout: config.connect_timeout })
    }

    /// Connects to this node from now on, until that fails.
    fn turn_to(&self, node: &str) {
        let Some((host, Ok(port))) = node.rsplit_once(':').map(|(host, port)| (host.to_owned(), port.parse())) else {
            return;
        };
        let info = self.configured.get_connection_info().clone();
        let addr = match info.addr().clone() {
            ConnectionAddr::Tcp(same, _) if host.is_empty() => ConnectionAddr::Tcp(same, port),
            ConnectionAddr::Tcp(..) => ConnectionAddr::Tcp(host, port),
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => return,
        };
        self.node.store(Client::open(info.set_addr(addr)).ok().map(Arc::new));
    }

    /// Connects and sees a first answer, within the connect timeout.
    pub(crate) async fn connect(&self) -> Result<MultiplexedConnection, RemoteError> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let node = self.node.load_full();
        let attempt = async {
            let client = node.as_deref().unwrap_or(&self.configured);
            let mut made = client.get_multiplexed_async_connection_with_config(&config).await?;
            // Loading or demoted servers answer pings with an error, too.
            redis::cmd("PING").exec_async(&mut made).await?;
            RedisResult::Ok(made)
        };
        let made = tokio::time::timeout(self.timeout, attempt).await.map_err(RemoteError::from);
        let made = made.and_then(|made| made.map_err(failed));
        if made.is_err() {
            self.node.store(None);
        }
        made
    }
}

/// Grows from attempt to attempt, with jitter, so that replicas don't return in step.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(BACKOFF.start)
    }

    pub(crate) async fn wait(&mut self) {
        let wait = self.0.mul_f32(0.5 + 0.5 * rand::random::<f32>());
        self.0 = (self.0 * 2).min(BACKOFF.end);
        tokio::time::sleep(wait).await;
    }
}

pub(crate) struct Shared {
    pub(crate) dialer: Dialer,
    pub(crate) timeout: Duration,
    slots: Vec<Slot>,
    timeouts: AtomicU32,
    /// Why the last attempt to connect failed.
    refusal: ArcSwapOption<RemoteError>,
}

#[derive(Default)]
pub(crate) struct Slot {
    connection: ArcSwapOption<MultiplexedConnection>,
    suspect: Notify,
}

impl Shared {
    pub(crate) fn new(dialer: Dialer, slots: usize, timeout: Duration) -> Self {
        let slots = std::iter::repeat_with(Slot::default).take(slots).collect();
        Self { dialer, timeout, slots, timeouts: AtomicU32::new(0), refusal: ArcSwapOption::empty() }
    }

    pub(crate) fn open(&self) -> usize {
        self.slots.iter().filter(|slot| slot.connection.load().is_some()).count()
    }

    /// What to say where no connection is open.
    pub(crate) fn unavailable(&self) -> RemoteError {
        let refusal = self.refusal.load().as_ref().map(ToString::to_string);
        RemoteError::Unavailable(refusal.unwrap_or_else(|| "it was lost, or not made yet".to_owned()).into())
    }

    /// The first open connection at or after `first`.
    pub(crate) fn pick(&self, first: usize) -> Option<Picked<'_>> {
        (0..self.slots.len()).find_map(|i| {
            let slot = &self.slots[(first.wrapping_add(i)) % self.slots.len()];
            slot.connection.load_full().map(|connection| Picked { shared: self, slot, connection })
        })
    }

    /// A node of a cluster said which other one has the slot.
    pub(crate) fn turn_to(&self, node: &str) {
        self.dialer.turn_to(node);
        self.slots.iter().for_each(Slot::give_up);
    }

    pub(crate) async fn supervise(self: Arc<Self>, slot: usize) {
        let slot = &self.slots[slot];
        let mut backoff = Backoff::new();
        loop {
            match self.dialer.connect().await {
                Ok(made) => {
                    backoff = Backoff::new();
                    let made = Arc::new(made);
                    slot.connection.store(Some(Arc::clone(&made)));
                    self.refusal.store(None);
                    watch(slot, &made).await;
                    slot.connection.store(None);
                    tracing::debug!(name: "cache.redis_replaced", target: "tiered_cache", "a Redis connection is replaced");
                }
                Err(error) => {
                    tracing::debug!(name: "cache.redis_unreachable", target: "tiered_cache", %error, "down");
                    self.refusal.store(Some(Arc::new(error)));
                }
            }
            backoff.wait().await;
        }
    }
}

/// Returns when the connection is no longer worth keeping.
async fn watch(slot: &Slot, made: &Arc<MultiplexedConnection>) {
    let mut connection = MultiplexedConnection::clone(made);
    loop {
        // A notice may be a late one about the connection before: what the slot holds decides.
        let waited = tokio::time::timeout(PING_EVERY, slot.suspect.notified()).await;
        if !slot.holds(made) {
            return;
        }
        if waited.is_ok() {
            continue;
        }
        let ping = redis::cmd("PING");
        let answer = tokio::time::timeout(PING_EVERY, ping.exec_async(&mut connection)).await;
        if !matches!(answer, Ok(Ok(()))) {
            return;
        }
    }
}

impl Slot {
    fn holds(&self, made: &Arc<MultiplexedConnection>) -> bool {
        self.connection.load().as_ref().is_some_and(|held| Arc::ptr_eq(held, made))
    }

    fn give_up(&self) {
        // At once, not when the supervisor gets round to it: requests must not queue on a dead connection.
        self.connection.store(None);
        self.suspect.notify_one();
    }
}

pub(crate) struct Picked<'a> {
    shared: &'a Shared,
    slot: &'a Slot,
    connection: Arc<MultiplexedConnection>,
}

impl Picked<'_> {
    pub(crate) fn connection(&self) -> MultiplexedConnection {
        MultiplexedConnection::clone(&self.connection)
    }

    pub(crate) fn timed_out(&self) {
        // Commands that outlived their connection say nothing about the next one.
        if !self.slot.holds(&self.connection) {
            return;
        }
        if self.shared.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_IN_A_ROW {
            self.shared.timeouts.store(0, Ordering::Relaxed);
            self.shared.slots.iter().for_each(Slot::give_up);
        }
    }

    pub(crate) fn judge<T>(&self, outcome: RedisResult<T>) -> Result<T, RemoteError> {
        let lost = outcome.as_ref().err().is_some_and(is_about_the_connection);
        if lost && self.slot.holds(&self.connection) {
            self.slot.give_up();
        } else if !lost && self.shared.timeouts.load(Ordering::Relaxed) != 0 {
            self.shared.timeouts.store(0, Ordering::Relaxed);
        }
        outcome.map_err(failed)
    }
}

/// The connection broke, or leads to a server that isn't (or no longer is) one to write to. An answer about one key, or
/// one that isn't what was expected, says nothing against its connection.
fn is_about_the_connection(error: &RedisError) -> bool {
    error.is_io_error() || matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH"))
}
