//! `/api/data/{id}`: a value that is expensive to compute.

use std::time::Duration;

use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use tiered_cache::{Body, CacheKey, Loaded, Read, Tier};
use tracing::Instrument;
use utoipa::ToSchema;

use super::respond::{absent, cached, etag, unix_micros};
use crate::app::App;
use crate::server::problem::{self, Problem};

/// A computed value.
#[derive(Serialize, ToSchema)]
pub struct Computed<'a> {
    /// As asked for.
    id: &'a str,
    #[schema(example = "computed_value_7")]
    value: String,
    /// When it was computed: seconds since the epoch, with microseconds.
    computed_at: f64,
}

/// A computed value as answered.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the answer, whose parts are joined as texts")]
pub struct DataDocument<'a> {
    data: Computed<'a>,
    /// It came from a cache.
    cached: bool,
    /// When it was answered: seconds since the epoch, with microseconds.
    timestamp: f64,
}

fn check(id: &str) -> Result<&str, Problem> {
    let well_formed =
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let why = "The id must have 1 to 64 letters, digits, dots, dashes or underscores.";
    if well_formed { Ok(id) } else { Err(Problem::new(problem::BAD_REQUEST, why)) }
}

fn key(id: &str) -> CacheKey {
    CacheKey::builder("data").param("id", id).build()
}

/// Reads a computed value, cached.
#[utoipa::path(get, path = "/api/data/{id}", tag = "data", params(("id" = String, Path, max_length = 64)), responses(
    (status = 200, body = DataDocument<'static>), (status = 304, description = "the client's copy still holds")))]
pub async fn get_data(app: Data<App>, request: HttpRequest, path: Path<String>) -> Result<HttpResponse, Problem> {
    let id = check(&path)?;
    let (owned, time, schema) = (id.to_owned(), app.config.cache.compute_time, app.policies.data.schema);
    let load = move || async move { Ok(compute(&owned, time, schema).await) };
    let span = tracing::info_span!("get_data", data.id = id);
    let hit = app.cache.get_or_load(&key(id), &app.policies.data, Read::Bounded, load).instrument(span).await?;
    let loaded = hit.tier == Tier::Source;
    let value = hit.entry.value.as_ref().ok_or_else(|| absent(&hit, "Data not found"))?;
    Ok(cached(&request, &hit, value, |part| answer(part, !loaded)))
}

/// The part of the answer that doesn't vary. The wait stands for work that a real service would do here.
async fn compute(id: &str, time: Duration, schema: u32) -> Loaded {
    tokio::time::sleep(time).await;
    let micros = unix_micros();
    let computed = Computed { id, value: format!("computed_value_{id}"), computed_at: seconds(micros) };
    let body = Body {
        // A struct of texts and numbers always serialises.
        bytes: serde_json::to_vec(&computed).unwrap_or_default().into(),
        etag: etag(schema, micros),
    };
    Loaded { value: Some(body), version: 0 }
}

fn answer(part: &Bytes, cached: bool) -> Bytes {
    let rest = format!(",\"cached\":{cached},\"timestamp\":{:.6}}}", seconds(unix_micros()));
    [b"{\"data\":", part.as_ref(), rest.as_bytes()].concat().into()
}

#[expect(clippy::cast_precision_loss, reason = "exact until the year 2255")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Forgets a computed value on every replica.
#[utoipa::path(delete, path = "/api/data/{id}", tag = "data", params(("id" = String, Path, max_length = 64)),
    security(("token" = [])), responses((status = 204)))]
pub async fn forget_data(app: Data<App>, path: Path<String>) -> Result<HttpResponse, Problem> {
    app.cache.invalidate(&[key(check(&path)?)]).await?;
    Ok(HttpResponse::NoContent().finish())
}
