//! Errors of requests, as RFC 9457 problems.
//!
//! What the client reads (`detail`) and what the log keeps (`internal`) are kept apart: internals never leave the process.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::telemetry::context::{Hex, RequestContext};

/// Content type of every error.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What kinds of problem there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    WritesDisabled,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 409
    Conflict,
    /// 413
    PayloadTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422
    InvalidFields,
    /// 429
    TooManyRequests,
    /// 500
    Internal,
    /// 503
    Unavailable,
    /// 503
    Overloaded,
    /// 504
    Timeout,
}

impl Kind {
    /// All kinds, for the documentation.
    pub const ALL: [Self; 14] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::WritesDisabled,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidFields,
        Self::TooManyRequests,
        Self::Internal,
        Self::Unavailable,
        Self::Overloaded,
        Self::Timeout,
    ];

    /// Status, name in the problem's `type`, and `title`.
    pub const fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request can't be understood"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "A valid token is needed"),
            Self::WritesDisabled => (StatusCode::FORBIDDEN, "writes-disabled", "Writes are switched off"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "Conflict with what is there"),
            Self::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON")
            }
            Self::InvalidFields => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "Fields are not valid"),
            Self::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Something needed is unavailable"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too busy"),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout", "Not done in time"),
        }
    }

    /// The kind that stands for a status that something other than our code has set.
    fn of(status: StatusCode) -> Self {
        let same = |kind: &Self| kind.describe().0 == status;
        let fallback = if status.is_server_error() { Self::Internal } else { Self::BadRequest };
        Self::ALL.into_iter().find(same).unwrap_or(fallback)
    }
}

/// One invalid field of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub detail: &'static str,
}

/// A failed request.
#[derive(Debug)]
pub struct Problem {
    /// What kind of failure.
    pub kind: Kind,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    internal: Option<String>,
}

impl Problem {
    /// A problem with a sentence for the client.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), headers: Vec::new(), internal: None }
    }

    /// 404 with this sentence.
    pub fn not_found(detail: &'static str) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// 422 with these fields.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(Kind::InvalidFields, "One or more fields are not valid; see errors.") }
    }

    /// Keeps a text for the log that the client doesn't see.
    #[must_use]
    pub fn because(mut self, internal: impl Display) -> Self {
        self.internal = Some(internal.to_string());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says when to try again, rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The problem that an error of the framework amounts to.
    pub fn of_status(status: StatusCode) -> Self {
        let kind = Kind::of(status);
        Self::new(kind, kind.describe().2)
    }

    /// What only the log may know.
    pub fn internal(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// The whole answer.
    pub fn render(&self, context: &RequestContext, path: &str) -> HttpResponse {
        let (status, name, title) = self.kind.describe();
        let document = ProblemDocument {
            kind: format!("/openapi.json#/components/responses/{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            instance: path,
            trace_id: Hex(context.trace_id, 32).to_string(),
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

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// The telemetry middleware renders the body, since it knows the request's ids.
impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.kind.describe().0
    }
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
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
