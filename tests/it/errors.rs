//! Every way in which a request can be refused, but for its body: status, problem, nothing internal, and that the status
//! is documented.

use devkit::{Fault, FaultProxy};
use reqwest::Method;
use serde_json::json;

use crate::support::{Connection, TOKEN, TestApp, get, operations, refused, write};

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
async fn a_value_in_redis_that_cannot_be_read_is_a_conflict() {
    let app = TestApp::start().await;
    let mut redis = crate::support::redis(&app).await;
    let () = redis::AsyncCommands::set(&mut redis, "plinth:value:broken", "{oops").await.unwrap();
    refused(&app, "GET /api/cache/{key}", get(&app, "/api/cache/broken"), 409).await;
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
