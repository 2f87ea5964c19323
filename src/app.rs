//! Everything that handlers need, as plain fields, and how it starts and stops.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use telemetry::{Telemetry, traces};
use tiered_cache::{Policy, TieredCache};
use tiered_cache_memcached::Memcached;
use tiered_cache_redis::{Redis, RedisConfig};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{CacheConfig, Config};
use crate::health::{Checker, Health};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::connect::connect;
use crate::store::error::hopeless;
use crate::store::log::Log;
use crate::store::migrations::{self, Schema};

/// What the cache's keys in Redis and memcached begin with.
const NAMESPACE: &str = env!("CARGO_PKG_NAME");
/// How long the start waits for Redis, and for the log of changes, before it goes on without.
const CACHE_WAIT: Duration = Duration::from_secs(2);

/// Everything that handlers reach; one per process.
pub struct App {
    pub config: Config,
    pub store: Store,
    /// What tells the cache what changed.
    log: Arc<Log>,
    pub cache: TieredCache,
    pub policies: Policies,
    /// Redis for plain values, when configured.
    pub redis: Option<Redis>,
    pub health: Health,
    pub lifecycle: Lifecycle,
    pub telemetry: Telemetry,
    pub metrics: Metrics,
    /// What `/metrics` shows.
    pub registry: Registry,
}

const SECOND: Duration = Duration::from_secs(1);

/// How each kind of thing is cached.
pub struct Policies {
    pub user: Policy,
    pub data: Policy,
}

/// How long a request lets the database take: less than the cache waits for it, so that the answer names the cause.
fn patience(config: &Config) -> Duration {
    config.http.request_timeout.mul_f64(0.8)
}

impl Policies {
    pub fn new(config: &Config) -> Self {
        let CacheConfig { l1_ttl, l2_ttl, l3_ttl, fail_safe, .. } = config.cache;
        // A little less than the request's own, so that the client gets the answer that names the cause.
        let hard_timeout = config.http.request_timeout.mul_f64(0.9);
        let policy = |cache| {
            let usual = Policy::new(cache);
            // A load that is cut before its request would be cut at every retry.
            let load_timeout = usual.load_timeout.max(hard_timeout);
            Policy { l1_ttl, l2_ttl, l3_ttl, fail_safe, hard_timeout, load_timeout, ..usual }
        };
        // Computing data doesn't use the database, which the gate protects.
        Self { user: policy("user"), data: Policy { gated: false, ..policy("data") } }
    }
}

/// The start can't succeed however long one waits; holds a sentence for the operator.
#[derive(Debug)]
pub struct Refused(pub String);

impl App {
    /// Puts the parts together; connects to nothing yet.
    pub fn assemble(config: Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        let (runtime, health, mut registry) = (Handle::current(), Health::default(), Registry::default());
        let metrics = Metrics::new(&mut registry, &health);
        Metrics::register_telemetry(&mut registry, &telemetry);
        let cache = &config.cache;
        let redis = cache.redis_url.clone().map(|url| RedisConfig {
            url,
            connections: cache.redis_connections.min(config.http.workers),
            connect_timeout: cache.redis_connect_timeout,
            timeout: cache.redis_timeout,
        });
        let redis = redis.map(|redis| Redis::new(redis, runtime.clone())).transpose().context("Redis")?;
        let store = Store::new(&config.database, patience(&config), metrics.clone())?;
        let log = Arc::new(Log::new(store.clone()));
        // Some connections stay for writes and lists, whatever is being loaded.
        let loads = (config.database.pool_max * 7 / 10).max(1);
        let mut tiers = TieredCache::builder(runtime)
            .l1(cache.l1_max_bytes)
            .load_gate(loads, config.http.max_in_flight, config.database.acquire_timeout)
            .log(Arc::clone(&log) as _)
            .when_blind(cache.when_blind)
            .links(traces::name, traces::link);
        if let Some(redis) = &redis {
            let (remote, bus) = redis.tier(NAMESPACE);
            tiers = tiers.remote(remote, bus);
        }
        if let Some(memcached) = &cache.memcached_url {
            tiers = tiers.l3(Arc::new(Memcached::new(memcached, NAMESPACE)));
        }
        let tiers = tiers.build();
        tiers.register(&mut registry);
        Ok(Self {
            store,
            log,
            policies: Policies::new(&config),
            cache: tiers,
            redis,
            health,
            lifecycle: Lifecycle::default(),
            telemetry,
            metrics,
            registry,
            config,
        })
    }

    /// Waits for what the service needs: Postgres for as long as it takes, Redis for a moment.
    pub async fn start(&self) -> Result<(), Refused> {
        let checker = Checker {
            health: self.health.clone(),
            database: self.config.database.clone(),
            redis: self.redis.clone(),
            cache: self.cache.clone(),
            memory_limit: self.config.process.memory_limit,
        };
        let first_report = self.health.next_report();
        self.lifecycle.background("health", checker.run());
        let (store, error_rate) = (self.store.clone(), Arc::clone(&self.metrics.error_rate));
        self.lifecycle.background("pool", async move {
            loop {
                store.maintain().await;
                sleep(SECOND).await;
            }
        });
        self.lifecycle.background("lag", self.metrics.clone().watch_lag("background"));
        self.lifecycle.background("error_rate", async move {
            loop {
                sleep(SECOND).await;
                error_rate.tick();
            }
        });
        // Not ready before the first checks are done, so that a ready service never says that it wasn't checked yet.
        let (schema, ()) = tokio::join!(self.wait_for_schema(), first_report);
        schema?;
        self.log.open();
        self.wait_for_cache().await;
        // Nor that something is away, when it was at the first check and has come since.
        if !self.health.report().is_healthy() {
            self.health.next_report().await;
        }
        Ok(())
    }

    async fn wait_for_schema(&self) -> Result<(), Refused> {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.schema().await {
                Ok(Schema::Current) => return Ok(()),
                Ok(Schema::Behind(missing)) => {
                    let missing = missing.join(", ");
                    let run = concat!("run `", env!("CARGO_PKG_NAME"), " migrate` first, or set MIGRATE_ON_START=true");
                    let why = format!("The database's schema is behind this version (missing: {missing}): {run}.");
                    return Err(Refused(why));
                }
                Ok(Schema::TooNew(name)) => {
                    let lost = "The database's schema has lost what this version needs";
                    return Err(Refused(format!("{lost} ({name}): run a later version.")));
                }
                Err(error) if let Some(what) = hopeless(&error) => {
                    return Err(Refused(format!("The database can't be used ({error:#}): check {what}.")));
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(name: "start.waits_for_database", error, "waiting for the database");
                }
            }
            sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn schema(&self) -> anyhow::Result<Schema> {
        let database = &self.config.database;
        if database.migrate_on_start {
            migrations::migrate(database).await?;
        }
        let (client, _driver) = connect(database).await.context("can't connect to the database")?;
        migrations::check(&client).await.context("can't read the schema's history")
    }

    /// Until the log is heard, the cache answers nothing; until Redis takes writes, it isn't filled.
    async fn wait_for_cache(&self) {
        let usable = async {
            loop {
                let cache = self.cache.health();
                if cache.fence_open && cache.unfit.is_none() {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(CACHE_WAIT, usable).await.is_err() {
            let cache = self.cache.health();
            let error = cache.unfit.or(cache.log_error).unwrap_or_default();
            tracing::warn!(name: "start.without_cache", %error, "starting without all of the cache");
        }
    }

    /// Ends background work, cache and pool, in this order, by `deadline`.
    pub async fn stop(&self, deadline: Instant) {
        self.lifecycle.stop_background(deadline).await;
        self.cache.shutdown(deadline.saturating_duration_since(Instant::now())).await;
        self.store.close();
    }
}
