//! What every refusal has in common.

use reqwest::{Method, RequestBuilder};

use super::{Answer, TOKEN, TestApp, documents, openapi};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// What no client may learn: parts, their texts, files, addresses.
const INTERNAL: [&str; 14] = [
    "postgres",
    "sql",
    "select ",
    "insert ",
    "users_email",
    ".rs",
    "src/",
    "panick",
    "127.0.0.1",
    "deadpool",
    "tokio",
    "serde",
    "actix",
    "os error",
];

/// Sends a request and asserts all that any error must be. `operation` is as the OpenAPI document names it; empty for
/// what is none.
pub async fn refused(app: &TestApp, operation: &str, request: RequestBuilder, status: u16) -> Answer {
    let request = request.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
    let (client, request) = request.header("x-request-id", "an-error").build_split();
    let request = request.unwrap();
    let path = request.url().path().to_owned();
    let answer = app.send(RequestBuilder::from_parts(client, request)).await;
    let problem = answer.problem(status);
    assert_eq!(problem["trace_id"], TRACE);
    assert_eq!(problem["instance"], path);
    assert_eq!(answer.header("x-request-id"), "an-error");
    assert!(answer.header("x-response-time").ends_with("ms"));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_nothing_internal(&answer.text);
    let kind = problem["type"].as_str().unwrap().strip_prefix("/openapi.json#").unwrap();
    assert!(openapi().pointer(kind).is_some(), "{kind} describes nothing");
    assert!(operation.is_empty() || documents(operation, status), "{operation} doesn't document {status}");
    answer
}

fn assert_nothing_internal(text: &str) {
    let text = text.to_lowercase();
    for word in INTERNAL {
        assert!(!text.contains(word), "{word:?} in {text}");
    }
}

pub fn get(app: &TestApp, path: &str) -> RequestBuilder {
    app.request(Method::GET, path)
}

/// A write with the token and this body, sent as JSON.
pub fn write(app: &TestApp, method: Method, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    app.request(method, path).bearer_auth(TOKEN).header("content-type", "application/json").body(body)
}
