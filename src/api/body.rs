//! JSON bodies. What isn't JSON is refused as a whole; what is wrong in it is listed field by field.

use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpRequest};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::server::problem::{self, FieldError, Problem};

/// A body that is JSON, as it was sent.
#[derive(Debug)]
pub struct Json(pub Box<RawValue>);

impl FromRequest for Json {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let json = is_json(request);
        let bytes = Bytes::from_request(request, payload);
        Box::pin(async move {
            if !json {
                return Err(Problem::new(problem::NOT_JSON, "Send the body as Content-Type: application/json."));
            }
            let bytes = bytes.await.map_err(|error| match error.as_error::<PayloadError>() {
                Some(PayloadError::Overflow) => Problem::new(problem::TOO_LARGE, "The body is larger than BODY_LIMIT."),
                _ => Problem::new(problem::BAD_REQUEST, "The body could not be read to its end.").because(error),
            })?;
            let malformed = |error| Problem::new(problem::BAD_REQUEST, format!("The body is not valid JSON: {error}."));
            // Parsed whole, since a raw value alone would let bad UTF-16 escapes and numbers out of range through.
            serde_json::from_slice::<Value>(&bytes).map_err(malformed)?;
            serde_json::from_slice(&bytes).map(Self).map_err(malformed)
        })
    }
}

fn is_json(request: &HttpRequest) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

impl Json {
    /// The body as an object whose fields are then taken one by one.
    pub fn fields(&self) -> Result<Fields, Problem> {
        match serde_json::from_str(self.0.get()) {
            Ok(Value::Object(object)) => Ok(Fields { object, errors: Vec::new() }),
            _ => Err(Problem::invalid(vec![FieldError { field: "", detail: "the body must be an object" }])),
        }
    }
}

/// Collects what is wrong, so that the client learns it all at once.
pub struct Fields {
    object: serde_json::Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// A field that must be a valid text.
    pub fn text<T>(&mut self, field: &'static str, parse: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        let result = match self.object.get(field) {
            Some(Value::String(text)) => parse(text),
            Some(Value::Null) | None => Err("is required"),
            Some(_) => Err("must be a string"),
        };
        result.map_err(|detail| self.errors.push(FieldError { field, detail })).ok()
    }

    /// The errors so far, as a problem.
    pub fn into_problem(self) -> Problem {
        Problem::invalid(self.errors)
    }
}
