//! How the service is: checked in the background, so that probes cost nothing and never multiply queries.

pub mod memory;
pub mod probe;
pub mod probes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tiered_cache::{RemoteError, TieredCache};
use tiered_cache_redis::Redis;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use self::memory::Memory;
use crate::config::DatabaseConfig;
use crate::store::connect::connect;

/// A change shows within the period and one check.
const PERIOD: Duration = Duration::from_secs(2);
/// Longest time for one check.
const LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Healthy,
    /// It doesn't, and why.
    Unhealthy(String),
    /// It isn't configured.
    Disabled,
}

impl Verdict {
    pub fn text(&self) -> String {
        match self {
            Self::Healthy => "healthy".to_owned(),
            Self::Unhealthy(why) => format!("unhealthy: {why}"),
            Self::Disabled => "disabled".to_owned(),
        }
    }
}

/// One round of checks.
#[derive(Clone, Debug)]
pub struct Report {
    pub database: Verdict,
    pub redis: Verdict,
    /// Whether what is cached may answer.
    pub cache: Verdict,
    pub memory: Memory,
}

impl Report {
    pub fn is_healthy(&self) -> bool {
        let well = |verdict: &Verdict| matches!(verdict, Verdict::Healthy | Verdict::Disabled);
        [&self.database, &self.redis, &self.cache].into_iter().all(well)
    }

    /// `degraded` while something that answers is left.
    fn status(&self, memory_high: bool) -> &'static str {
        match (&self.database, &self.redis) {
            _ if memory_high => "unhealthy",
            _ if self.is_healthy() => "healthy",
            (Verdict::Healthy, _) | (_, Verdict::Healthy) => "degraded",
            _ => "unhealthy",
        }
    }
}

/// The latest report; cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    report: Arc<watch::Sender<Report>>,
    memory_high: Arc<AtomicBool>,
}

impl Default for Health {
    fn default() -> Self {
        let unknown = || Verdict::Unhealthy("not checked yet".to_owned());
        let report = Report { database: unknown(), redis: unknown(), cache: unknown(), memory: Memory::default() };
        Self { report: Arc::new(watch::Sender::new(report)), memory_high: Arc::default() }
    }
}

impl Health {
    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Completes with the next report.
    pub fn next_report(&self) -> impl Future<Output = ()> + use<> {
        let mut reports = self.report.subscribe();
        async move {
            let _ = reports.changed().await;
        }
    }

    /// Too little memory is left to take more traffic.
    pub fn memory_high(&self) -> bool {
        self.memory_high.load(Ordering::Relaxed)
    }

    fn publish(&self, report: Report) {
        let high = report.memory.is_high(self.memory_high());
        if self.memory_high.swap(high, Ordering::Relaxed) != high {
            let percent = report.memory.percent().unwrap_or_default();
            tracing::warn!(name: "health.memory", high, percent, "memory against its limit");
        }
        let before = self.report.send_replace(report);
        let now = self.report.borrow();
        for (what, before, now) in [
            ("database", before.database, &now.database),
            ("redis", before.redis, &now.redis),
            ("cache", before.cache, &now.cache),
        ] {
            if before != *now {
                let (service, before, now) = (what, before.text(), now.text());
                tracing::info!(name: "health.changed", service, before, now, "health changed");
            }
        }
    }
}

/// Runs the checks.
pub struct Checker {
    pub health: Health,
    /// A connection of its own is opened there: an exhausted pool is a different illness than a dead database.
    pub database: DatabaseConfig,
    pub redis: Option<Redis>,
    pub cache: TieredCache,
    pub memory_limit: Option<u64>,
}

impl Checker {
    pub async fn run(self) {
        let mut client = None;
        loop {
            let started = Instant::now();
            let (database, redis) = tokio::join!(self.check_database(&mut client), self.check_redis());
            let cache = self.check_cache();
            self.health.publish(Report { database, redis, cache, memory: Memory::read(self.memory_limit) });
            tokio::time::sleep(PERIOD.saturating_sub(started.elapsed())).await;
        }
    }

    async fn check_database(&self, kept: &mut Option<(Client, AbortOnDropHandle<()>)>) -> Verdict {
        let ask = async {
            let (client, driver) = match kept.take().filter(|(client, _)| !client.is_closed()) {
                Some(kept) => kept,
                None => connect(&self.database).await?,
            };
            client.simple_query("select 1").await?;
            anyhow::Ok((client, driver))
        };
        match timeout(LIMIT, ask).await {
            Ok(Ok(connection)) => {
                *kept = Some(connection);
                Verdict::Healthy
            }
            Ok(Err(error)) if error.downcast_ref().and_then(tokio_postgres::Error::code).is_some() => {
                Verdict::Unhealthy("refused".to_owned())
            }
            Ok(Err(_)) => Verdict::Unhealthy("connection failed".to_owned()),
            Err(_) => Verdict::Unhealthy("timeout".to_owned()),
        }
    }

    async fn check_redis(&self) -> Verdict {
        let Some(redis) = &self.redis else { return Verdict::Disabled };
        let ask = async {
            let give_up = Instant::now() + LIMIT * 9 / 10;
            loop {
                match redis.ping(LIMIT * 9 / 10).await {
                    // There may just be no connection yet.
                    Err(RemoteError::Unavailable(_)) if Instant::now() < give_up => {}
                    outcome => return outcome,
                }
                tokio::time::sleep(LIMIT / 20).await;
            }
        };
        match timeout(LIMIT, ask).await {
            // It may answer and still be of no use.
            Ok(Ok(())) => self.cache.health().unfit.map_or(Verdict::Healthy, |why| Verdict::Unhealthy(why.to_string())),
            Ok(Err(error)) => Verdict::Unhealthy(error.to_string()),
            Err(_) => Verdict::Unhealthy("timeout".to_owned()),
        }
    }

    fn check_cache(&self) -> Verdict {
        let cache = self.cache.health();
        if cache.fence_open {
            return Verdict::Healthy;
        }
        let why = cache.log_error.as_deref().unwrap_or("nothing was heard in time").to_owned();
        Verdict::Unhealthy(format!("nobody says what changed: {why}"))
    }
}
