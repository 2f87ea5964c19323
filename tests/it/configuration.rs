//! Settings: what is wrong with them is said at once and in full, and secrets never.

use std::process::Output;

use reqwest::Method;
use serde_json::json;

use crate::support::{TOKEN, TestApp, program};

/// Runs the program with these variables; for what ends by itself.
async fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    program().args(args).envs(env.iter().copied()).kill_on_drop(true).output().await.unwrap()
}

/// The message with which the program refuses these settings.
async fn refusal(args: &[&str], env: &[(&str, &str)]) -> String {
    let output = run(args, env).await;
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    message
}

/// The names in the generated page.
fn settings() -> Vec<(&'static str, &'static str)> {
    let rows = include_str!("../../docs/configuration.md").lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, rest) = row.split_once("` | ").unwrap();
        (name, rest.split(" | ").next().unwrap().trim_end_matches(" |"))
    })
    .collect()
}

#[tokio::test]
async fn without_database_url_the_start_is_refused() {
    let message = refusal(&[], &[]).await;
    let wanted = "plinth: the configuration is not valid:\n  DATABASE_URL: is missing; for example \
                  DATABASE_URL=postgres://plinth:secret@db:5432/plinth\n";
    assert_eq!(message, wanted);
}

#[tokio::test]
async fn serve_is_what_happens_without_a_command() {
    assert_eq!(refusal(&[], &[]).await, refusal(&["serve"], &[]).await);
}

#[tokio::test]
async fn one_message_names_every_wrong_setting() {
    let wrong = [
        ("PORT", "80000"),
        ("BIND_ADDRESS", "localhost"),
        ("MANAGEMENT_PORT", "x"),
        ("WORKERS", "0"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("REQUEST_TIMEOUT", "10"),
        ("BODY_LIMIT", "64KB"),
        ("MAX_IN_FLIGHT", "-1"),
        ("RATE_LIMIT", "100"),
        ("DATABASE_POOL_MIN", "50"),
        ("DATABASE_COMMAND_TIMEOUT", "0s"),
        ("MIGRATE_ON_START", "yes"),
        ("REDIS_POOL_MAX", "none"),
        ("CACHE_L1_TTL", "301s"),
        ("CACHE_L1_MAX_BYTES", "lots"),
        ("DRAIN_DELAY", "25s"),
        ("MEMORY_LIMIT", "half"),
        ("LOG_LEVEL", "=loud=="),
        ("LOG_FORMAT", "xml"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "jaeger:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_RESOURCE_ATTRIBUTES", "novalue"),
    ];
    let message = refusal(&[], &wrong).await;
    for (name, value) in wrong {
        let line = message.lines().find(|line| line.starts_with(&format!("  {name}: ")));
        let line = line.unwrap_or_else(|| panic!("nothing about {name} in:\n{message}"));
        assert!(line.contains(value), "{line}");
        assert!(line.contains(&format!("; for example {name}=")), "{line}");
    }
    assert_eq!(message.lines().count(), 1 + wrong.len() + 1, "and DATABASE_URL:\n{message}");
}

#[tokio::test]
async fn more_threads_than_the_framework_takes_are_refused() {
    let message = refusal(&[], &[("WORKERS", "513")]).await;
    assert!(message.contains("  WORKERS: \"513\" must be at most 512"), "{message}");
}

#[tokio::test]
async fn a_wrong_secret_is_named_but_not_shown() {
    let message = refusal(
        &[],
        &[
            ("DATABASE_URL", "postgres://plinth:hunter2@[/x"),
            ("REDIS_URL", "http://:hunter2@redis"),
            ("API_TOKEN", "hunter2 and more"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization hunter2"),
        ],
    )
    .await;
    for name in ["DATABASE_URL", "REDIS_URL", "API_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS"] {
        assert!(message.contains(&format!("  {name}: ")), "{message}");
    }
    assert!(!message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn secrets_are_in_no_log_line_however_much_is_logged() {
    let proxy = devkit::FaultProxy::start("127.0.0.1:1".parse().unwrap()).await.unwrap();
    proxy.set(devkit::Fault::Refuse);
    let app = TestApp::builder()
        .env("DATABASE_URL", format!("postgres://plinth:hunter2@{}/plinth", proxy.addr()))
        .env("REDIS_URL", format!("redis://:hunter2@{}", proxy.addr()))
        .env("API_TOKEN", "hunter2")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", proxy.addr()))
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("LOG_LEVEL", "trace")
        .without_waiting()
        .start()
        .await;
    app.send(app.request(Method::POST, "/api/users").bearer_auth("hunter2")).await.problem(503);
    app.wait_for_line("the database is missed", |line| line["message"] == "waiting for the database").await;
    app.wait_for_line("Redis is missed", |line| line["message"] == "down").await;
    for line in app.log() {
        assert!(!line.to_string().contains("hunter2"), "{line}");
    }
}

#[tokio::test]
async fn a_secret_may_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (token, url) = (folder.path().join("token"), folder.path().join("url"));
    let database = crate::support::database().await;
    std::fs::write(&token, "from-a-file\n").unwrap();
    std::fs::write(&url, format!("{}\n", database.url())).unwrap();
    let app = TestApp::builder()
        .env("API_TOKEN", "")
        .env("API_TOKEN_FILE", token.display())
        .env("DATABASE_URL", "")
        .env("DATABASE_URL_FILE", url.display())
        .start()
        .await;
    let body = json!({"name": "Ada", "email": "ada@example.com"});
    let request = |token: &str| app.request(Method::POST, "/api/users").bearer_auth(token).json(&body);
    app.send(request(TOKEN)).await.problem(401);
    assert_eq!(app.send(request("from-a-file")).await.status, 201);
}

#[tokio::test]
async fn a_secret_and_its_file_together_are_refused() {
    let env = [("DATABASE_URL", "postgres://u:hunter2@db/x"), ("DATABASE_URL_FILE", "/run/secrets/url")];
    let message = refusal(&[], &env).await;
    assert!(message.contains("DATABASE_URL: and DATABASE_URL_FILE are both set"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn a_secret_whose_file_cannot_be_read_is_refused() {
    let message = refusal(&[], &[("DATABASE_URL_FILE", "/nowhere/url")]).await;
    assert!(message.contains("DATABASE_URL: DATABASE_URL_FILE=/nowhere/url can't be read"), "{message}");
    assert_eq!(message.lines().count(), 2, "said once:\n{message}");
}

#[tokio::test]
async fn an_empty_variable_counts_as_unset() {
    let settings = settings();
    let empty: Vec<(&str, &str)> = settings.iter().map(|(name, _)| (*name, "")).collect();
    assert_eq!(refusal(&[], &empty).await, refusal(&[], &[]).await);
}

#[tokio::test]
async fn a_flag_wins_over_its_variable() {
    let good_flag = refusal(&["--port", "0"], &[("PORT", "wrong")]).await;
    assert!(!good_flag.contains("PORT"), "{good_flag}");
    let bad_flag = refusal(&["serve", "--port=flagged"], &[("PORT", "3000")]).await;
    assert!(bad_flag.contains("PORT: \"flagged\""), "{bad_flag}");
}

#[tokio::test]
async fn help_names_every_setting_with_its_flag_or_without() {
    let output = run(&["--help"], &[]).await;
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let settings = settings();
    assert!(settings.len() > 40, "{settings:?}");
    for (name, flag) in settings {
        assert!(help.contains(name), "{name} is not in --help");
        let flag_shown = help.contains(&format!("--{} ", name.to_lowercase().replace('_', "-")));
        assert_eq!(flag_shown, flag.starts_with("`--"), "{name}");
    }
    assert!(help.contains("_FILE"));
}

#[tokio::test]
async fn help_shows_no_value_of_a_secret() {
    let env = [("DATABASE_URL", "postgres://u:hunter2@db/x"), ("API_TOKEN", "hunter2")];
    let output = run(&["--help"], &env).await;
    assert!(!String::from_utf8(output.stdout).unwrap().contains("hunter2"));
}

#[tokio::test]
async fn unknown_flags_and_commands_are_bad_usage() {
    for args in [["--colour=blue"], ["sing"], ["--database-url=x"], ["--api-token=x"]] {
        assert_eq!(run(&args, &[]).await.status.code(), Some(2), "{args:?}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_start_with_a_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let database = crate::support::database().await.url();
    let env = [("DATABASE_URL", database.as_str()), ("BIND_ADDRESS", "127.0.0.1"), ("PORT", &port)];
    let output = run(&[], &env).await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("can't listen on 127.0.0.1:{port}")), "{text}");
}
