//! The endpoints for balancers, orchestrators and Prometheus. They read what is known; none of them asks anybody.

use actix_web::http::header::{ACCEPT, CACHE_CONTROL};
use actix_web::{HttpRequest, HttpResponse, web};
use prometheus_client::encoding::{prometheus_text, text};
use serde::Serialize;
use serde_json::json;
use tiered_cache_redis::Redis;
use utoipa::ToSchema;

use crate::app::App;
use crate::catalog::CATALOG;
use crate::lifecycle::Phase;
use crate::server::problem::{self, Problem};

/// OpenMetrics' media type, which the library has no name for.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why an instance takes no traffic, or that it does.
#[derive(Serialize, ToSchema)]
pub struct ProbeDocument {
    /// In a word.
    #[schema(example = "ready")]
    status: &'static str,
}

/// How the service and what it needs are. `status` is `healthy`, `degraded` (the database, or Redis, or the cache can't be
/// used; still 200) or `unhealthy` (503: the database and Redis are gone, or memory is nearly used up); a service is
/// `healthy`, `unhealthy: why` or `disabled`. With the cache's fence shut, nobody says which cached values are old; with
/// its breaker open, Redis or its bus can't be used, and `services.redis` says why.
#[utoipa::path(get, path = "/health", tag = "management", responses((status = 200, body = Object, example = json!({
    "status": "healthy", "timestamp": 1_795_449_829, "version": "0.1.0",
    "services": {"database": "healthy", "redis": "healthy"},
    "pools": {"postgres": {"status": "healthy", "pool_size": 6, "free_size": 6},
              "redis": {"status": "healthy", "connections": 2}},
    "memory": {"used_bytes": 13_000_000, "limit_bytes": 268_435_456, "percent": 4.84},
    "cache": {"status": "healthy", "fence": "open", "log_lag_seconds": 0.21, "log_error": null, "breaker": "closed", "l3_breaker": "closed", "bus_lag_seconds": 0.04, "loads": 0,
              "queued": 0, "l1_bytes": 0, "l1_entries": 0}
})), (status = 503, body = Object, description = "unhealthy")))]
pub async fn health(app: web::Data<App>) -> HttpResponse {
    let report = app.health.report();
    let (pool, cache) = (app.store.status(), app.cache.health());
    let (database, redis) = (report.database.text(), report.redis.text());
    let status = report.status(app.health.memory_high());
    let breaker = |open| if open { "open" } else { "closed" };
    let percent = report.memory.percent().map(|percent| (percent * 100.0).round() / 100.0);
    let document = json!({
        "status": status,
        "timestamp": crate::api::respond::unix_micros() / 1_000_000,
        "version": crate::VERSION,
        "services": {"database": database, "redis": redis},
        "pools": {
            "postgres": {"status": database, "pool_size": pool.size, "free_size": pool.available},
            "redis": {"status": redis, "connections": app.redis.as_ref().map_or(0, Redis::connections)},
        },
        "memory": {"used_bytes": report.memory.used, "limit_bytes": report.memory.limit, "percent": percent},
        "cache": {
            "status": report.cache.text(),
            "fence": if cache.fence_open { "open" } else { "shut" },
            "log_lag_seconds": cache.log_lag.as_secs_f64(),
            "log_error": cache.log_error.as_deref(),
            "breaker": breaker(cache.unfit.is_some()),
            "l3_breaker": breaker(cache.l3_breaker_open),
            "bus_lag_seconds": cache.bus_lag.as_secs_f64(),
            "loads": cache.loads, "queued": cache.queued,
            "l1_bytes": cache.l1_bytes, "l1_entries": cache.l1_entries,
        },
    });
    answer(if status == "unhealthy" { Err(document) } else { Ok(document) })
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
    let accepts = |value: &str| value.contains("application/openmetrics-text");
    let wants_openmetrics = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(accepts);
    let mut page = String::with_capacity(64 * 1024);
    let (written, content_type) = if wants_openmetrics {
        (text::encode(&mut page, &app.registry), OPENMETRICS)
    } else {
        (prometheus_text::encode(&mut page, &app.registry), prometheus_text::CONTENT_TYPE)
    };
    written.map_err(|error| Problem::new(problem::INTERNAL, "The metrics can't be written.").because(error))?;
    Ok(HttpResponse::Ok().content_type(content_type).body(CATALOG.admitted(&page)))
}
