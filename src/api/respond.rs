//! Answers from the cache, and errors of cache and database as problems.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::header::{AGE, CACHE_CONTROL, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use tiered_cache::{Body, CacheError, Hit, Read, Tier, WriteError};

use crate::server::problem::{self, Problem};
use crate::store::error::StoreError;
use telemetry::context::RequestContext;

pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Clients may keep answers but must ask whether they still hold.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, max-age=0, must-revalidate");

/// Microseconds since the epoch.
pub fn unix_micros() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a point in time for people, not a duration")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// How fresh the client wants an answer: `X-Min-Version` asks for at least what a write answered as `X-Version`.
pub fn read_level(request: &HttpRequest) -> Result<Read, Problem> {
    let Some(given) = request.headers().get("x-min-version") else { return Ok(Read::Bounded) };
    let version = given.to_str().ok().and_then(|text| text.trim().parse().ok());
    let why = "X-Min-Version must be a version that a write answered as X-Version.";
    version.map(Read::Version).ok_or_else(|| Problem::new(problem::BAD_REQUEST, why))
}

/// Weak, since a body tells where it came from. The schema is part of it: after a deploy that changes the body's shape,
/// what a client has of the same version is old.
pub fn etag(schema: u32, version: u64) -> Bytes {
    format!("W/\"{schema}-{version}\"").into()
}

/// Answers with a body made from a hit, or 304 when the client has it already.
pub fn cached(request: &HttpRequest, hit: &Hit, value: &Body, body: impl FnOnce(&Bytes) -> Bytes) -> HttpResponse {
    note(hit);
    let etag = &value.etag;
    let unchanged = matches(request.headers(), etag);
    let mut answer = if unchanged { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer.insert_header((CACHE_CONTROL, REVALIDATE)).insert_header((CACHE_STATUS, cache_status(hit)));
    answer.insert_header((AGE, hit.age.as_secs()));
    if let Ok(etag) = HeaderValue::from_bytes(etag) {
        answer.insert_header((ETAG, etag));
    }
    if unchanged { answer.finish() } else { answer.content_type("application/json").body(body(&value.bytes)) }
}

/// 404 for a thing that isn't there, saying who knew.
pub fn absent(hit: &Hit, detail: &'static str) -> Problem {
    note(hit);
    let problem = Problem::not_found(detail);
    HeaderValue::from_str(&cache_status(hit)).into_iter().fold(problem, |p, value| p.with_header(CACHE_STATUS, value))
}

/// For the request's log line.
fn note(hit: &Hit) {
    if let Some(context) = RequestContext::current() {
        // Set once per request, here.
        let _ = context.cache.set(hit.tier.as_str());
    }
}

/// `Cache-Status` (RFC 9211): who answered, and for how long that holds.
fn cache_status(hit: &Hit) -> String {
    let mut text = String::from(env!("CARGO_PKG_NAME"));
    if hit.tier == Tier::Source {
        text.push_str("; fwd=uri-miss");
        text.push_str(if hit.stored { "; stored" } else { "" });
        text.push_str(if hit.collapsed { "; collapsed" } else { "" });
    } else {
        text.push_str("; hit");
    }
    // Writing into a String can't fail.
    let _ = write!(text, "; ttl={}; detail={}", hit.ttl.as_secs(), hit.tier.as_str());
    text.push_str(if hit.unverified { "-unverified" } else { "" });
    if let Some(reason) = hit.stale {
        let _ = write!(text, "; stale={}", reason.as_str());
    }
    text
}

/// Weak comparison (RFC 9110, section 13.1.2).
fn matches(headers: &HeaderMap, etag: &[u8]) -> bool {
    let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(etag) = std::str::from_utf8(etag) else { return false };
    let given = headers.get_all(IF_NONE_MATCH).filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|tag| tag.trim() == "*" || weak(tag) == weak(etag))
}

impl From<CacheError> for Problem {
    fn from(error: CacheError) -> Self {
        if let CacheError::Load(source) | CacheError::Log(source) = &error
            && let Some(error) = source.downcast_ref::<StoreError>()
        {
            return Self::from(error);
        }
        match error {
            CacheError::Timeout => Self::new(problem::TIMEOUT, "The value was not loaded in time."),
            CacheError::Overloaded { retry_after } => {
                Self::new(problem::OVERLOADED, "Too many values are being loaded.").retry_after(retry_after)
            }
            CacheError::VersionNotReached { found } => {
                Self::new(problem::CONFLICT, format!("The source is at version {found}, below the one asked for."))
            }
            CacheError::Closed => unavailable("The service is stopping."),
            CacheError::Load(_) | CacheError::Log(_) | CacheError::Panicked => {
                Self::new(problem::INTERNAL, "The value could not be loaded.").because(error)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        let problem = match error {
            StoreError::PoolTimeout | StoreError::Unreachable(_) => unavailable("The database can't be reached."),
            StoreError::Timeout => unavailable("The database did not answer in time."),
            StoreError::ReadOnly => unavailable("The database takes no writes at the moment."),
            StoreError::Contended(_) => unavailable("Other writes came first every time; nothing was written."),
            StoreError::Conflict(_) => {
                Self::new(problem::CONFLICT, "Something with the same unique value exists already.")
            }
            StoreError::CommitUnknown(_) => unavailable("The database did not say whether this was written."),
            StoreError::Other(_) => Self::new(problem::INTERNAL, "The database refused the request."),
        };
        problem.because(error)
    }
}

impl From<WriteError<StoreError>> for Problem {
    fn from(error: WriteError<StoreError>) -> Self {
        match error {
            WriteError::Source(error) => error.into(),
            WriteError::Closed => unavailable("The service is stopping; nothing was written."),
            WriteError::Panicked => Self::new(problem::INTERNAL, "The write failed.").because("a panic, logged apart"),
        }
    }
}

fn unavailable(detail: &'static str) -> Problem {
    Problem::new(problem::UNAVAILABLE, detail).retry_after(Duration::from_secs(1))
}
