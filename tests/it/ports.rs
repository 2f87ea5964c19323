//! `MANAGEMENT_PORT`: health and metrics on a port of their own.

use devkit::{free_port, wait_until};

use crate::support::{LIMIT, Sql, TestApp, Wire, operations};

/// A service with a management port, ready, and the URL of that port.
async fn app_with_management() -> (TestApp, String) {
    let port = free_port().unwrap();
    let app = TestApp::builder().env("MANAGEMENT_PORT", port).without_waiting().start().await;
    let url = format!("http://127.0.0.1:{port}");
    let ready = async || status(&app, &format!("{url}/health/ready")).await == 200;
    wait_until("the service is ready", LIMIT, ready).await.unwrap();
    (app, url)
}

async fn status(app: &TestApp, url: &str) -> u16 {
    app.client.get(url).send().await.map_or(0, |answer| answer.status().as_u16())
}

#[tokio::test]
async fn each_open_operation_is_on_one_of_the_two_ports() {
    let (app, management) = app_with_management().await;
    for operation in operations().iter().filter(|operation| operation.method == "GET") {
        let moved = operation.path.starts_with("/health") || ["/metrics", "/log-filter"].contains(&&*operation.path);
        // The last one doesn't exist on either port, but says so in its own words on one.
        let path = operation.example().replace("/docs/1", "/docs/index.html").replace("/1", "/x");
        let there = status(&app, &format!("{management}{path}")).await;
        let here = app.get(&path).await.status.as_u16();
        if moved {
            assert_eq!((there, here), (200, 404), "{path}");
        } else if !path.starts_with("/api/cache") {
            assert!(there == 404 && here != 404, "{path}: {there} {here}");
        }
    }
}

#[tokio::test]
async fn the_management_port_answers_until_the_background_has_ended() {
    let (mut app, management) = app_with_management().await;
    let sql = Sql::connect(&app.database.as_ref().unwrap().url()).await;
    sql.add_users(1).await;
    sql.run("begin; select from users where id = 1 for update").await;
    let mut client = Wire::open(&app.url).await.unwrap();
    let body = r#"{"name": "New Name", "email": "user1@example.com"}"#;
    client.send_json("PUT", "/api/users/1", body).await.unwrap();
    sql.wait_for_waiting(1).await;
    client.reset();

    app.signal("TERM");
    let refused = async || Wire::open(&app.url).await.is_err();
    wait_until("no connection is taken any more", LIMIT, refused).await.unwrap();
    // No request is left, but the write goes on.
    for _ in 0..100 {
        assert_eq!(status(&app, &format!("{management}/health/live")).await, 200);
    }
    assert_eq!(status(&app, &format!("{management}/metrics")).await, 200);
    sql.unlock().await;

    assert_eq!(app.exit().await.code(), Some(0));
}

#[tokio::test]
async fn errors_of_the_management_port_are_problems_too() {
    let (app, management) = app_with_management().await;
    let answer = app.send(app.client.get(format!("{management}/api/test"))).await;
    assert_eq!(answer.problem(404)["instance"], "/api/test");
    let answer = app.send(app.client.post(format!("{management}/metrics"))).await;
    answer.problem(405);
    assert_eq!(answer.header("allow"), "GET, HEAD");
}
