//! `plinth healthcheck`, the image's HEALTHCHECK.

use devkit::{free_port, wait_until};

use crate::support::{LIMIT, TestApp, program};

/// Its exit code, asking on this port with these further variables.
async fn healthcheck(args: &[&str], env: &[(&str, String)]) -> Option<i32> {
    let mut command = program();
    command.arg("healthcheck").args(args).envs(env.iter().cloned());
    command.output().await.unwrap().status.code()
}

fn port_of(app: &TestApp) -> (&'static str, String) {
    ("PORT", app.url.rsplit(':').next().unwrap().to_owned())
}

#[tokio::test]
async fn of_a_healthy_service_every_check_succeeds() {
    let app = TestApp::start().await;
    for args in [&[] as &[&str], &["ready"], &["live"], &["health"]] {
        assert_eq!(healthcheck(args, &[port_of(&app)]).await, Some(0), "{args:?}");
    }
}

#[tokio::test]
async fn it_tells_what_is_alive_from_what_takes_no_traffic() {
    let app = TestApp::builder().env("MEMORY_LIMIT", "1MiB").without_waiting().start().await;
    let short = async || app.get("/health/ready").await.text.contains("memory");
    wait_until("memory is short", LIMIT, short).await.unwrap();
    assert_eq!(healthcheck(&["live"], &[port_of(&app)]).await, Some(0));
    assert_eq!(healthcheck(&[], &[port_of(&app)]).await, Some(1));
    assert_eq!(healthcheck(&["health"], &[port_of(&app)]).await, Some(1));
}

#[tokio::test]
async fn it_asks_where_health_is_served() {
    let management = free_port().unwrap();
    let app = TestApp::builder().env("MANAGEMENT_PORT", management).without_waiting().start().await;
    let env = [port_of(&app), ("MANAGEMENT_PORT", management.to_string())];
    let ready = async || healthcheck(&[], &env).await == Some(0);
    wait_until("the check succeeds", LIMIT, ready).await.unwrap();
    assert_eq!(healthcheck(&[], &[port_of(&app)]).await, Some(1), "it isn't served on the API's port");
}

#[tokio::test]
async fn without_a_service_it_fails_with_a_sentence() {
    // Bound but not listening, so that nobody else can answer there.
    let proxy = devkit::FaultProxy::start("127.0.0.1:1".parse().unwrap()).await.unwrap();
    proxy.set(devkit::Fault::Refuse);
    let output = program().arg("healthcheck").env("PORT", proxy.port().to_string()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(&format!("nothing answers on 127.0.0.1:{}", proxy.port())), "{message}");
}

#[tokio::test]
async fn a_service_that_accepts_and_is_silent_fails_it() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    assert_eq!(healthcheck(&["live"], &[("PORT", port.to_string())]).await, Some(1));
}

#[tokio::test]
async fn an_unknown_check_is_bad_usage() {
    assert_eq!(healthcheck(&["lively"], &[]).await, Some(2));
}
