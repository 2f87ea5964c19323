//! `/api/cache/{key}`: plain values that live in Redis only, in a key space of their own.

use std::fmt::Display;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::HeaderValue;
use actix_web::web::{Data, Path, Query};
use redis::{Cmd, FromRedisValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tiered_cache::RemoteError;
use tracing::Instrument;
use tracing::field::Empty;
use utoipa::ToSchema;

use super::body::Json;
use super::respond::CACHE_STATUS;
use crate::app::App;
use crate::server::problem::{self, Problem};

/// No other key of the service begins like this. Each command names one key, so it needs no hash tag.
const SPACE: &str = concat!(env!("CARGO_PKG_NAME"), ":value:");
const HIT: &str = concat!(env!("CARGO_PKG_NAME"), "; hit; detail=l2");
const MISS: &str = concat!(env!("CARGO_PKG_NAME"), "; fwd=uri-miss; detail=l2");
/// Nobody may fill Redis for ever.
const MAX_TTL: u64 = 30 * 24 * 3600;

/// A stored value.
#[derive(Serialize, ToSchema)]
pub struct ValueDocument<'a> {
    /// As asked for.
    key: &'a str,
    #[schema(value_type = Object)]
    value: &'a RawValue,
}

/// How long a value is kept.
#[derive(Deserialize)]
pub struct Life {
    ttl: Option<String>,
}

async fn run<T: FromRedisValue>(app: &App, name: &str, command: &Cmd) -> Result<T, Problem> {
    let unset = || Problem::new(problem::UNAVAILABLE, "These values live in Redis, and REDIS_URL is not set.");
    let redis = app.redis.as_ref().ok_or_else(unset)?;
    let span = tracing::info_span!(
        "redis_command",
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = name,
        error.type = Empty,
        otel.status_code = Empty,
    );
    redis.query(command).instrument(span.clone()).await.map_err(|error| {
        let kind = if matches!(error, RemoteError::Timeout) { "timeout" } else { "_OTHER" };
        span.record("error.type", kind).record("otel.status_code", "ERROR");
        match error {
            RemoteError::WrongType => foreign(error),
            other => unreachable(other),
        }
    })
}

fn unreachable(error: RemoteError) -> Problem {
    let detail = "These values live in Redis, which can't be reached.";
    Problem::new(problem::UNAVAILABLE, detail).retry_after(Duration::from_secs(1)).because(error)
}

/// Somebody else has written under this key; storing or deleting a value mends that.
fn foreign(what: impl Display) -> Problem {
    Problem::new(problem::CONFLICT, "Redis holds something under this key that is no JSON value.").because(what)
}

fn redis_key(key: &str) -> Result<String, Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let why = "The key must have 1 to 200 letters, digits, dots, colons, dashes or underscores.";
    let well_formed = (1..=200).contains(&key.len()) && key.bytes().all(allowed);
    if well_formed { Ok(format!("{SPACE}{key}")) } else { Err(Problem::new(problem::BAD_REQUEST, why)) }
}

/// Reads a value.
#[utoipa::path(get, path = "/api/cache/{key}", tag = "cache", params(("key" = String, Path, max_length = 200)),
    responses((status = 200, body = ValueDocument<'static>)))]
pub async fn get_value(app: Data<App>, path: Path<String>) -> Result<HttpResponse, Problem> {
    let key = redis_key(&path)?;
    let bytes: Option<Vec<u8>> = run(&app, "GET", redis::cmd("GET").arg(key)).await?;
    let miss = || Problem::not_found("Key not found").with_header(CACHE_STATUS, HeaderValue::from_static(MISS));
    let bytes = bytes.ok_or_else(miss)?;
    let value = serde_json::from_slice(&bytes).map_err(foreign)?;
    Ok(HttpResponse::Ok().insert_header((CACHE_STATUS, HIT)).json(ValueDocument { key: &path, value }))
}

/// Stores a value.
#[utoipa::path(put, path = "/api/cache/{key}", tag = "cache", params(("key" = String, Path, max_length = 200),
    ("ttl" = Option<u64>, Query, minimum = 1, description = "seconds, CACHE_L2_TTL unless given, at most 30 days")),
    request_body(content = Object, description = "any JSON value"), security(("token" = [])),
    responses((status = 200, body = ValueDocument<'static>)))]
pub async fn put_value(
    app: Data<App>,
    path: Path<String>,
    life: Query<Life>,
    body: Json,
) -> Result<HttpResponse, Problem> {
    let key = redis_key(&path)?;
    let seconds = match &life.ttl {
        None => app.config.cache.l2_ttl.as_secs().max(1),
        Some(text) => text.parse().ok().filter(|seconds| (1..=MAX_TTL).contains(seconds)).ok_or_else(|| {
            Problem::new(problem::BAD_REQUEST, "ttl must be a whole number of seconds from 1 to 2592000.")
        })?,
    };
    run::<()>(&app, "SET", redis::cmd("SET").arg(key).arg(body.0.get()).arg("EX").arg(seconds)).await?;
    Ok(HttpResponse::Ok().json(ValueDocument { key: &path, value: &body.0 }))
}

/// Deletes a value; deleting what isn't there is fine.
#[utoipa::path(delete, path = "/api/cache/{key}", tag = "cache", params(("key" = String, Path, max_length = 200)),
    security(("token" = [])), responses((status = 204)))]
pub async fn delete_value(app: Data<App>, path: Path<String>) -> Result<HttpResponse, Problem> {
    let key = redis_key(&path)?;
    run::<()>(&app, "DEL", redis::cmd("DEL").arg(key)).await?;
    Ok(HttpResponse::NoContent().finish())
}
