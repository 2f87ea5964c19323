//! Every way in which a request can be refused: status, problem, nothing internal, and that the status is documented.

use devkit::{Fault, FaultProxy};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Answer, Connection, TOKEN, TestApp, documents, openapi, operations};

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
async fn refused(app: &TestApp, operation: &str, request: RequestBuilder, status: u16) -> Answer {
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

fn get(app: &TestApp, path: &str) -> RequestBuilder {
    app.request(Method::GET, path)
}

/// A write with the token and this body, sent as JSON.
fn write(app: &TestApp, method: Method, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    app.request(method, path).bearer_auth(TOKEN).header("content-type", "application/json").body(body)
}

/// The operations that take a body, with a path to try each.
fn with_body() -> [(&'static str, Method, &'static str); 3] {
    [
        ("POST /api/users", Method::POST, "/api/users"),
        ("PUT /api/users/{id}", Method::PUT, "/api/users/1"),
        ("PUT /api/cache/{key}", Method::PUT, "/api/cache/a"),
    ]
}

#[tokio::test]
async fn unknown_paths_are_404() {
    let app = TestApp::start().await;
    for path in ["/", "/api", "/api/nothing", "/api/users/", "/api/users/1/x", "/API/users", "/%0A%22x", "/healthz"] {
        let answer = refused(&app, "", get(&app, path), 404).await;
        assert_eq!(answer.json()["detail"], "There is nothing at this path.");
    }
    refused(&app, "", app.request(Method::from_bytes(b"BREW").unwrap(), "/nothing"), 404).await;
}

#[tokio::test]
async fn an_unknown_user_is_404() {
    let app = TestApp::start().await;
    let body = json!({"name": "Ada", "email": "ada@example.com"}).to_string();
    let read = refused(&app, "GET /api/users/{id}", get(&app, "/api/users/7"), 404).await;
    let put = write(&app, Method::PUT, "/api/users/7", body);
    let put = refused(&app, "PUT /api/users/{id}", put, 404).await;
    let delete = app.request(Method::DELETE, "/api/users/7").bearer_auth(TOKEN);
    let delete = refused(&app, "DELETE /api/users/{id}", delete, 404).await;
    for answer in [read, put, delete] {
        assert_eq!(answer.json()["detail"], "User not found");
    }
}

#[tokio::test]
async fn an_unknown_key_is_404() {
    let app = TestApp::start().await;
    let answer = refused(&app, "GET /api/cache/{key}", get(&app, "/api/cache/nothing"), 404).await;
    assert_eq!(answer.json()["detail"], "Key not found");
}

#[tokio::test]
async fn an_unknown_file_of_the_documentation_is_404() {
    let app = TestApp::start().await;
    refused(&app, "GET /docs/{file}", get(&app, "/docs/nothing.js"), 404).await;
    refused(&app, "GET /docs/{file}", get(&app, "/docs/..%2f..%2fetc%2fpasswd"), 404).await;
}

#[tokio::test]
async fn a_wrong_method_is_405_and_told_the_right_ones() {
    let app = TestApp::start().await;
    let all = operations();
    let paths: std::collections::BTreeSet<&str> = all.iter().map(|operation| operation.path.as_str()).collect();
    for path in paths {
        let of_path: Vec<_> = all.iter().filter(|operation| operation.path == path).collect();
        let mut right: Vec<&str> = of_path.iter().map(|operation| operation.method.as_str()).collect();
        if right.contains(&"GET") {
            right.push("HEAD");
        }
        right.sort_unstable();
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "get"] {
            if right.contains(&method) {
                continue;
            }
            let request = app.request(Method::from_bytes(method.as_bytes()).unwrap(), &of_path[0].example());
            let answer = refused(&app, "", request.bearer_auth(TOKEN), 405).await;
            let mut allowed: Vec<&str> = answer.header("allow").split(", ").collect();
            allowed.sort_unstable();
            assert_eq!(allowed, right, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_400() {
    let app = TestApp::start().await;
    for (operation, method, path) in with_body() {
        for body in ["", "{", "{\"name\":}", "{} x", "\u{feff}{}", "{\"a\":1e999}", "\"\\ud800\"", "nul"] {
            refused(&app, operation, write(&app, method.clone(), path, body), 400).await;
        }
        let not_utf8 = write(&app, method, path, b"\"\xff\"".to_vec());
        refused(&app, operation, not_utf8, 400).await;
    }
}

#[tokio::test]
async fn a_user_id_that_is_no_positive_number_is_400() {
    let app = TestApp::start().await;
    for id in ["0", "-1", "+1", "x", "1.5", "1%20", "%FF", "%00", "9223372036854775808", "1;drop"] {
        let path = format!("/api/users/{id}");
        refused(&app, "GET /api/users/{id}", get(&app, &path), 400).await;
        refused(&app, "PUT /api/users/{id}", write(&app, Method::PUT, &path, "{}"), 400).await;
        let delete = app.request(Method::DELETE, &path).bearer_auth(TOKEN);
        refused(&app, "DELETE /api/users/{id}", delete, 400).await;
    }
}

#[tokio::test]
async fn an_id_of_data_with_other_signs_or_too_long_is_400() {
    let app = TestApp::start().await;
    for id in ["a%20b", "a%2Fb", "%C3%BC", "%0A", "a:b", &"x".repeat(65)] {
        let path = format!("/api/data/{id}");
        refused(&app, "GET /api/data/{id}", get(&app, &path), 400).await;
        let delete = app.request(Method::DELETE, &path).bearer_auth(TOKEN);
        refused(&app, "DELETE /api/data/{id}", delete, 400).await;
    }
}

#[tokio::test]
async fn a_key_with_other_signs_or_too_long_is_400() {
    let app = TestApp::start().await;
    for key in ["a%20b", "a%2Fb", "%C3%BC", "%0D%0ADEL%20x", "a*", &"x".repeat(201)] {
        let path = format!("/api/cache/{key}");
        refused(&app, "GET /api/cache/{key}", get(&app, &path), 400).await;
        refused(&app, "PUT /api/cache/{key}", write(&app, Method::PUT, &path, "1"), 400).await;
        let delete = app.request(Method::DELETE, &path).bearer_auth(TOKEN);
        refused(&app, "DELETE /api/cache/{key}", delete, 400).await;
    }
}

#[tokio::test]
async fn parameters_of_pages_out_of_range_are_400() {
    let app = TestApp::start().await;
    for query in ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=", "limit=1.0", "after=-1", "after=x", "after="]
    {
        let answer = refused(&app, "GET /api/users", get(&app, &format!("/api/users?{query}")), 400).await;
        let name = query.split('=').next().unwrap();
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(name), "{query}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_life_out_of_range_is_400() {
    let app = TestApp::start().await;
    for ttl in ["0", "-1", "x", "", "1.5", "2592001"] {
        let request = write(&app, Method::PUT, &format!("/api/cache/a?ttl={ttl}"), "1");
        refused(&app, "PUT /api/cache/{key}", request, 400).await;
    }
}

#[tokio::test]
async fn writes_without_a_valid_token_are_401() {
    let app = TestApp::start().await;
    let shorter = &TOKEN[..TOKEN.len() - 1];
    let wrong = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer wrong".to_owned(),
        format!("Bearer {shorter}"),
        format!("Bearer {TOKEN}x"),
        format!("Basic {TOKEN}"),
        format!("Token {TOKEN}"),
        TOKEN.to_owned(),
    ];
    for operation in operations().into_iter().filter(|operation| operation.token) {
        let name = format!("{} {}", operation.method, operation.path);
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let missing = app.request(method.clone(), &operation.example());
        let answer = refused(&app, &name, missing, 401).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        for header in &wrong {
            let request = app.request(method.clone(), &operation.example()).header("authorization", header);
            refused(&app, &name, request, 401).await;
        }
    }
}

#[tokio::test]
async fn the_token_comes_before_the_body() {
    let app = TestApp::start().await;
    for (operation, method, path) in with_body() {
        refused(&app, operation, app.request(method, path).body("not JSON"), 401).await;
    }
}

#[tokio::test]
async fn the_scheme_of_a_token_is_read_without_regard_to_case() {
    let app = TestApp::start().await;
    let request = app.request(Method::DELETE, "/api/cache/a").header("authorization", format!("bEARER {TOKEN}"));
    assert_eq!(app.send(request).await.status, 204);
}

#[tokio::test]
async fn each_of_several_tokens_is_good() {
    let app = TestApp::builder().env("API_TOKEN", "old-one, new-one").start().await;
    for token in ["old-one", "new-one"] {
        let request = app.request(Method::DELETE, "/api/cache/a").bearer_auth(token);
        assert_eq!(app.send(request).await.status, 204, "{token}");
    }
    for token in ["old-one, new-one", "old-one,new-one", "third"] {
        let request = app.request(Method::DELETE, "/api/cache/a").bearer_auth(token);
        refused(&app, "DELETE /api/cache/{key}", request, 401).await;
    }
}

#[tokio::test]
async fn without_api_token_writes_are_403_and_say_why() {
    let app = TestApp::builder().env("API_TOKEN", "").start().await;
    for operation in operations().into_iter().filter(|operation| operation.token) {
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let name = format!("{} {}", operation.method, operation.path);
        for token in ["", "x", TOKEN] {
            let request = app.request(method.clone(), &operation.example()).bearer_auth(token);
            let answer = refused(&app, &name, request, 403).await;
            assert!(answer.json()["detail"].as_str().unwrap().contains("API_TOKEN"));
        }
    }
}

#[tokio::test]
async fn a_taken_address_is_409() {
    let app = TestApp::start().await;
    app.create_user("Ada", "ada@example.com").await;
    let id = app.create_user("Grace", "grace@example.com").await;
    let body = json!({"name": "Ada", "email": "Ada@Example.com"}).to_string();
    let post = write(&app, Method::POST, "/api/users", body.clone());
    refused(&app, "POST /api/users", post, 409).await;
    let put = write(&app, Method::PUT, &format!("/api/users/{id}"), body);
    refused(&app, "PUT /api/users/{id}", put, 409).await;
}

#[tokio::test]
async fn a_body_above_the_limit_is_413() {
    let app = TestApp::builder().env("BODY_LIMIT", "1KiB").start().await;
    let body_of = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    for (operation, method, path) in with_body() {
        refused(&app, operation, write(&app, method, path, body_of(1025)), 413).await;
    }
    let largest = write(&app, Method::PUT, "/api/cache/a", body_of(1024));
    assert_eq!(app.send(largest).await.status, 200, "exactly the limit is allowed");
}

#[tokio::test]
async fn a_body_in_chunks_above_the_limit_is_413() {
    let app = TestApp::builder().env("BODY_LIMIT", "1KiB").start().await;
    for (operation, method, path) in with_body() {
        let mut connection = Connection::open(&app).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        connection.send(head).await;
        for _ in 0..3 {
            connection.send(format!("200\r\n{}\r\n", "x".repeat(512))).await;
        }
        connection.send("0\r\n\r\n").await;
        let answer = connection.receive(method.as_str()).await;
        assert_eq!((answer.status, answer.header("content-type")), (413, "application/problem+json"));
        assert_eq!(answer.json()["status"], 413);
        assert_eq!(answer.json()["instance"], path);
        assert!(documents(operation, 413));
    }
}

#[tokio::test]
async fn a_body_that_is_not_called_json_is_415() {
    let app = TestApp::start().await;
    for (operation, method, path) in with_body() {
        let request = || app.request(method.clone(), path).bearer_auth(TOKEN).body("{}");
        refused(&app, operation, request(), 415).await;
        for kind in ["", "text/plain", "application/jsonx", "application/x-www-form-urlencoded", "json"] {
            refused(&app, operation, request().header("content-type", kind), 415).await;
        }
    }
}

#[tokio::test]
async fn json_by_other_names_is_accepted() {
    let app = TestApp::start().await;
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"] {
        let request = app.request(Method::PUT, "/api/cache/a").bearer_auth(TOKEN).header("content-type", kind);
        assert_eq!(app.send(request.body("1")).await.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn invalid_fields_are_422_and_listed_all_at_once() {
    let app = TestApp::start().await;
    let too_long = "x".repeat(201);
    let cases: [(Value, Value); 7] = [
        (json!({}), json!([{"field": "name", "detail": "is required"}, {"field": "email", "detail": "is required"}])),
        (
            json!({"name": 7, "email": ["a@b.c"]}),
            json!([{"field": "name", "detail": "must be a string"}, {"field": "email", "detail": "must be a string"}]),
        ),
        (
            json!({"name": " ", "email": "nobody"}),
            json!([
                {"field": "name", "detail": "must not be empty"},
                {"field": "email", "detail": "must be an e-mail address"}
            ]),
        ),
        (
            json!({"name": too_long, "email": "a@b.c"}),
            json!([{"field": "name", "detail": "must have at most 200 characters"}]),
        ),
        (
            json!({"name": "a\u{0}b", "email": null}),
            json!([
                {"field": "name", "detail": "must not hold control characters"},
                {"field": "email", "detail": "is required"}
            ]),
        ),
        (json!([1]), json!([{"field": "", "detail": "the body must be an object"}])),
        (json!(null), json!([{"field": "", "detail": "the body must be an object"}])),
    ];
    for (body, errors) in cases {
        for (operation, method, path) in &with_body()[..2] {
            let answer = refused(&app, operation, write(&app, method.clone(), path, body.to_string()), 422).await;
            assert_eq!(answer.json()["errors"], errors, "{body}");
        }
    }
}

#[tokio::test]
async fn other_problems_have_no_list_of_fields() {
    let app = TestApp::start().await;
    let answer = refused(&app, "GET /api/users/{id}", get(&app, "/api/users/7"), 404).await;
    let problem = answer.json();
    let fields: Vec<&str> = problem.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["detail", "instance", "status", "title", "trace_id", "type"]);
}

#[tokio::test]
async fn a_value_that_takes_too_long_is_504() {
    let app = TestApp::builder().env("DATA_COMPUTE_TIME", "5s").env("REQUEST_TIMEOUT", "300ms").start().await;
    refused(&app, "GET /api/data/{id}", get(&app, "/api/data/slow"), 504).await;
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_504() {
    let app = TestApp::builder().env("REQUEST_TIMEOUT", "300ms").start().await;
    for (operation, method, path) in with_body() {
        let mut connection = Connection::open(&app).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
        );
        connection.send(head).await;
        let answer = connection.receive(method.as_str()).await;
        assert_eq!((answer.status, answer.header("content-type")), (504, "application/problem+json"));
        assert!(documents(operation, 504));
    }
}

#[tokio::test]
async fn without_redis_values_are_503() {
    let app = TestApp::builder().without_redis().start().await;
    let read = refused(&app, "GET /api/cache/{key}", get(&app, "/api/cache/a"), 503).await;
    let put = write(&app, Method::PUT, "/api/cache/a", "1");
    let put = refused(&app, "PUT /api/cache/{key}", put, 503).await;
    let delete = app.request(Method::DELETE, "/api/cache/a").bearer_auth(TOKEN);
    let delete = refused(&app, "DELETE /api/cache/{key}", delete, 503).await;
    for answer in [read, put, delete] {
        assert!(answer.json()["detail"].as_str().unwrap().contains("REDIS_URL"));
    }
}

#[tokio::test]
async fn before_the_first_contact_with_the_database_everything_is_503() {
    let proxy = FaultProxy::start("127.0.0.1:1".parse().unwrap()).await.unwrap();
    proxy.set(Fault::Refuse);
    let url = format!("postgres://plinth:hunter2@{}/plinth", proxy.addr());
    let app = TestApp::builder().env("DATABASE_URL", url).without_waiting().start().await;
    for operation in operations().iter().filter(|operation| operation.path.starts_with("/api/")) {
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let answer = refused(&app, "", app.request(method, &operation.example()), 503).await;
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1));
    }
}

#[tokio::test]
async fn what_needs_a_lost_database_is_503() {
    let database = crate::support::database().await;
    let server = devkit::shared_postgres().await.unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let app = TestApp::builder().env("DATABASE_URL", database.url_through(proxy.port())).start().await;
    proxy.set(Fault::Refuse);
    proxy.cut();
    let body = json!({"name": "Ada", "email": "ada@example.com"}).to_string();
    let requests = [
        ("GET /api/users", get(&app, "/api/users")),
        ("GET /api/users/{id}", get(&app, "/api/users/1")),
        ("GET /api/test", get(&app, "/api/test")),
        ("POST /api/users", write(&app, Method::POST, "/api/users", body.clone())),
        ("PUT /api/users/{id}", write(&app, Method::PUT, "/api/users/1", body)),
        ("DELETE /api/users/{id}", app.request(Method::DELETE, "/api/users/1").bearer_auth(TOKEN)),
    ];
    for (operation, request) in requests {
        let answer = refused(&app, operation, request, 503).await;
        assert!(!answer.header("retry-after").is_empty(), "{operation}");
    }
}

#[tokio::test]
async fn a_value_in_redis_that_cannot_be_read_is_500() {
    let app = TestApp::start().await;
    let mut redis = crate::support::redis(&app).await;
    let () = redis::AsyncCommands::set(&mut redis, "plinth:value:broken", "{oops").await.unwrap();
    refused(&app, "GET /api/cache/{key}", get(&app, "/api/cache/broken"), 500).await;
}

#[tokio::test]
async fn an_error_for_head_has_no_body() {
    let app = TestApp::start().await;
    let mut connection = Connection::open(&app).await;
    connection.send("HEAD /api/users/7 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let head = connection.receive("HEAD").await;
    assert_eq!((head.status, head.header("content-type")), (404, "application/problem+json"));
    connection.send("GET /api/test HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(connection.receive("GET").await.status, 200, "the connection is still in step");
}
