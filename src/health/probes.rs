//! The endpoints for balancers, orchestrators and Prometheus. They read what is known; none of them asks anybody.

use actix_web::http::header::{ACCEPT, CACHE_CONTROL};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use tiered_cache::Redis;
use utoipa::ToSchema;

use crate::app::App;
use crate::lifecycle::Phase;
use crate::server::problem::{self, Problem};
use crate::telemetry::exposition;

/// The answer of `/health`.
#[derive(Serialize, ToSchema)]
pub struct HealthDocument {
    /// `healthy`, `degraded` (one dependency is gone, still 200) or `unhealthy` (503).
    #[schema(example = "healthy")]
    status: &'static str,
    /// Seconds since the epoch.
    timestamp: u64,
    /// The running version.
    version: &'static str,
    /// Each dependency: `healthy`, `unhealthy: why` or `disabled`.
    services: Services,
    /// Connections.
    pools: Pools,
    /// Memory against its limit.
    memory: MemoryDocument,
    /// How the cache does.
    cache: CacheDocument,
}

#[derive(Serialize, ToSchema)]
struct CacheDocument {
    /// Open: values in the process may answer. Shut: Redis was silent for too long.
    #[schema(example = "open")]
    fence: &'static str,
    /// Closed: Redis is asked. Open: it is left alone until it is well.
    #[schema(example = "closed")]
    breaker: &'static str,
    /// Loads that ask the source, and that wait for it.
    loads: usize,
    queued: usize,
    l1_bytes: u64,
    l1_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct Services {
    database: String,
    redis: String,
}

#[derive(Serialize, ToSchema)]
struct Pools {
    postgres: PostgresPool,
    redis: RedisPool,
}

#[derive(Serialize, ToSchema)]
struct PostgresPool {
    status: String,
    /// Connections open.
    pool_size: usize,
    /// Connections open and unused.
    free_size: usize,
}

#[derive(Serialize, ToSchema)]
struct RedisPool {
    status: String,
    /// Connections open.
    connections: usize,
}

#[derive(Serialize, ToSchema)]
struct MemoryDocument {
    used_bytes: Option<u64>,
    limit_bytes: Option<u64>,
    percent: Option<f64>,
}

/// Why an instance takes no traffic, or that it does.
#[derive(Serialize, ToSchema)]
pub struct ProbeDocument {
    /// In a word.
    #[schema(example = "ready")]
    status: &'static str,
}

/// How the service and what it needs are.
#[utoipa::path(get, path = "/health", tag = "management", responses(
    (status = 200, body = HealthDocument), (status = 503, body = HealthDocument, description = "unhealthy")))]
pub async fn health(app: web::Data<App>) -> HttpResponse {
    let report = app.health.report();
    let pool = app.store.status();
    let (database, redis) = (report.database.text(), report.redis.text());
    let cache = app.cache.health();
    let document = HealthDocument {
        status: report.status(app.health.memory_high()),
        timestamp: crate::api::respond::unix_micros() / 1_000_000,
        version: crate::VERSION,
        services: Services { database: database.clone(), redis: redis.clone() },
        pools: Pools {
            postgres: PostgresPool { status: database, pool_size: pool.size, free_size: pool.available },
            redis: RedisPool { status: redis, connections: app.redis.as_ref().map_or(0, Redis::connections) },
        },
        memory: MemoryDocument {
            used_bytes: report.memory.used,
            limit_bytes: report.memory.limit,
            percent: report.memory.percent().map(|percent| (percent * 100.0).round() / 100.0),
        },
        cache: CacheDocument {
            fence: if cache.fence_open { "open" } else { "shut" },
            breaker: if cache.breaker_open { "open" } else { "closed" },
            loads: cache.loads,
            queued: cache.queued,
            l1_bytes: cache.l1_bytes,
            l1_entries: cache.l1_entries,
        },
    };
    answer(if document.status == "unhealthy" { Err(document) } else { Ok(document) })
}

/// 200 or 503.
fn answer<T: Serialize>(document: Result<T, T>) -> HttpResponse {
    let mut answer = if document.is_ok() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    let (Ok(document) | Err(document)) = document;
    answer.insert_header((CACHE_CONTROL, "no-store")).json(document)
}

fn probe(word: Result<&'static str, &'static str>) -> HttpResponse {
    answer(word.map(|status| ProbeDocument { status }).map_err(|status| ProbeDocument { status }))
}

/// The process turns over.
#[utoipa::path(get, path = "/health/live", tag = "management", responses((status = 200, body = ProbeDocument)))]
pub async fn live() -> HttpResponse {
    probe(Ok("alive"))
}

/// Takes traffic: started, not draining, enough memory. A lost database doesn't make it unready, since it has gone for
/// all replicas alike, and cached reads still work.
#[utoipa::path(get, path = "/health/ready", tag = "management", responses(
    (status = 200, body = ProbeDocument), (status = 503, body = ProbeDocument, description = "takes no traffic")))]
pub async fn ready(app: web::Data<App>) -> HttpResponse {
    match app.lifecycle.phase() {
        Phase::Starting => probe(Err("starting")),
        Phase::Ready if app.health.memory_high() => probe(Err("short of memory")),
        Phase::Ready => probe(Ok("ready")),
        Phase::Draining | Phase::Stopping | Phase::Stopped => probe(Err("draining")),
    }
}

/// The start is finished.
#[utoipa::path(get, path = "/health/startup", tag = "management", responses(
    (status = 200, body = ProbeDocument), (status = 503, body = ProbeDocument, description = "still starting")))]
pub async fn startup(app: web::Data<App>) -> HttpResponse {
    match app.lifecycle.phase() {
        Phase::Starting => probe(Err("starting")),
        _ => probe(Ok("started")),
    }
}

/// Metrics: OpenMetrics with exemplars for who accepts it, else Prometheus' plain text.
#[utoipa::path(get, path = "/metrics", tag = "management", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut text = String::with_capacity(64 * 1024);
    prometheus_client::encoding::text::encode(&mut text, &app.registry)
        .map_err(|error| Problem::new(problem::INTERNAL, "The metrics can't be written.").because(error))?;
    let accepts = |value: &str| value.contains("application/openmetrics-text");
    let wants_openmetrics = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(accepts);
    Ok(if wants_openmetrics {
        HttpResponse::Ok().content_type(exposition::OPENMETRICS).body(text)
    } else {
        HttpResponse::Ok().content_type(exposition::PLAIN).body(exposition::plain(&text))
    })
}
