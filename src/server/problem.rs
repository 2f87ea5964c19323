//! Errors of requests, as RFC 9457 problems.
//!
//! What the client reads (`detail`) and what the log keeps (`internal`) are kept apart: internals never leave the process.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use telemetry::context::RequestContext;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// A kind of problem: the status, its name in the problem's `type`, and its `title`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub status: StatusCode,
    pub name: &'static str,
    pub title: &'static str,
}

const fn kind(status: StatusCode, name: &'static str, title: &'static str) -> Kind {
    Kind { status, name, title }
}

pub const BAD_REQUEST: Kind = kind(StatusCode::BAD_REQUEST, "bad-request", "The request can't be understood");
pub const UNAUTHORIZED: Kind = kind(StatusCode::UNAUTHORIZED, "unauthorized", "A valid token is needed");
pub const WRITES_DISABLED: Kind = kind(StatusCode::FORBIDDEN, "writes-disabled", "Writes are switched off");
pub const NOT_FOUND: Kind = kind(StatusCode::NOT_FOUND, "not-found", "Not found");
pub const METHOD_NOT_ALLOWED: Kind =
    kind(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The resource doesn't have this method");
pub const CONFLICT: Kind = kind(StatusCode::CONFLICT, "conflict", "Conflict with what is there");
pub const TOO_LARGE: Kind = kind(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", "The body is too large");
pub const NOT_JSON: Kind = kind(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON");
pub const INVALID: Kind = kind(StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "Fields are not valid");
pub const TOO_MANY: Kind = kind(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests");
pub const INTERNAL: Kind = kind(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here");
pub const UNAVAILABLE: Kind = kind(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Something needed is unavailable");
pub const OVERLOADED: Kind = kind(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too busy");
pub const TIMEOUT: Kind = kind(StatusCode::GATEWAY_TIMEOUT, "timeout", "Not done in time");

/// All kinds, as they are documented.
#[rustfmt::skip]
pub const ALL: [Kind; 14] = [
    BAD_REQUEST, UNAUTHORIZED, WRITES_DISABLED, NOT_FOUND, METHOD_NOT_ALLOWED, CONFLICT, TOO_LARGE, NOT_JSON, INVALID,
    TOO_MANY, INTERNAL, UNAVAILABLE, OVERLOADED, TIMEOUT,
];

/// One invalid field of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    pub field: &'static str,
    pub detail: &'static str,
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    pub kind: Kind,
    detail: Cow<'static, str>,
    errors: Box<[FieldError]>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What only the log may know.
    pub internal: Option<Box<str>>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), errors: Box::default(), headers: Vec::new(), internal: None }
    }

    pub fn not_found(detail: &'static str) -> Self {
        Self::new(NOT_FOUND, detail)
    }

    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self { errors: errors.into(), ..Self::new(INVALID, "One or more fields are not valid; see errors.") }
    }

    pub fn because(mut self, internal: impl Display) -> Self {
        self.internal = Some(internal.to_string().into());
        self
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says when to try again, rounded up to whole seconds.
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The problem that an error of the framework amounts to.
    pub fn of_status(status: StatusCode) -> Self {
        let fallback = if status.is_server_error() { INTERNAL } else { BAD_REQUEST };
        let kind = ALL.into_iter().find(|kind| kind.status == status).unwrap_or(fallback);
        Self::new(kind, kind.title)
    }

    pub fn render(&self, context: &RequestContext, path: &str) -> HttpResponse {
        let Kind { status, name, title } = self.kind;
        let document = ProblemDocument {
            kind: format!("/openapi.json#/components/responses/{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            instance: path,
            trace_id: context.trace_id.to_string(),
            errors: &self.errors,
        };
        let mut answer = HttpResponse::build(status);
        for (name, value) in &self.headers {
            answer.insert_header((name.clone(), value.clone()));
        }
        // A struct of texts and numbers always serialises.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        answer.insert_header((header::CACHE_CONTROL, "no-store")).content_type(CONTENT_TYPE).body(body)
    }
}

/// The telemetry middleware renders the body, since it knows the request's ids.
impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.kind.status
    }
}

/// A failed request (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// Names the kind of problem; resolves to its description.
    #[serde(rename = "type")]
    #[schema(example = "/openapi.json#/components/responses/not-found")]
    kind: String,
    /// The kind in words.
    #[schema(example = "Not found")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What was wrong with this request.
    #[schema(example = "User not found")]
    detail: &'a str,
    /// The path that was asked for.
    #[schema(example = "/api/users/1")]
    instance: &'a str,
    /// The trace to look for.
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: String,
    /// The fields that are not valid, with status 422.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}
