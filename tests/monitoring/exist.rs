//! Every metric that a rule or a dashboard asks for is there, with the labels that it is asked by.

use std::collections::BTreeSet;
use std::io::{Seek, Write};
use std::process::Command;

use devkit::wait_until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::boards::{boards, expression};
use crate::files::{list, parse, program, read};
use crate::objectives::Objectives;
use crate::programs::{LIMIT, Programs};
use crate::support::OwnPostgres;

/// The service makes them with the ten-thousandth hit, and with one that nobody vouches for; that they are declared has to do.
const RARE: [&str; 2] = ["cache_consistency_probe_total", "cache_unverified_served_total"];

/// Where an expression stands, and the expression.
type Expression = (String, String);

/// Expressions of rules and dashboards, with Grafana's variables replaced.
fn expressions() -> Vec<Expression> {
    let objectives = Objectives::read();
    let mut all = Vec::new();
    for file in list("docker/prometheus/rules", ".yml") {
        for group in parse::<Value>(&file)["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap();
                all.push((format!("{file}: {name}"), rule["expr"].as_str().unwrap().to_owned()));
            }
        }
    }
    for (name, board) in boards() {
        for panel in &board.panels {
            for query in panel.queries.values() {
                all.push((format!("dashboard {name}: {}", panel.title), plain(&expression(query, &objectives))));
            }
        }
        let json: Value = serde_json::from_str(&read(&format!("docker/grafana/dashboards/{name}.json"))).unwrap();
        for mark in json["annotations"]["list"].as_array().unwrap() {
            all.push((format!("dashboard {name}: {}", mark["name"]), mark["expr"].as_str().unwrap().to_owned()));
        }
    }
    all
}

/// Without Grafana's variables.
fn plain(query: &str) -> String {
    let query = query.replace("$__rate_interval", "1m");
    ["$environment", "$service", "$instance"].iter().fold(query, |text, variable| text.replace(variable, ".*"))
}

/// Names and labels of all selectors in what Prometheus made of an expression.
fn selectors(tree: &Value, found: &mut Vec<(String, Vec<String>)>) {
    if let Some(matchers) = tree["matchers"].as_array() {
        let labels = matchers.iter().map(|matcher| matcher["name"].as_str().unwrap().to_owned());
        let labels = labels.filter(|label| label != "__name__").collect();
        found.push((tree["name"].as_str().unwrap().to_owned(), labels));
    }
    match tree {
        Value::Array(parts) => parts.iter().for_each(|part| selectors(part, found)),
        Value::Object(parts) => parts.values().for_each(|part| selectors(part, found)),
        _ => {}
    }
}

/// The service's catalog has the metric with these labels.
fn declared(name: &str, labels: &[String]) -> bool {
    let page = read("docs/telemetry.md");
    let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap_or_default();
    // The others come from the scrape.
    let own = labels.iter().filter(|label| !["environment", "service", "instance"].contains(&label.as_str()));
    own.into_iter().all(|label| row.contains(&format!("`{label}`"))) && !row.is_empty()
}

/// Users do all that users do, while Postgres is well and while it is gone.
async fn session(postgres: &OwnPostgres, app: &crate::support::TestApp) {
    let body = json!({"name": "Ada", "email": "ada@example.com"});
    assert_eq!(app.write(Method::PUT, "/api/users/3", &body).await.status, 200);
    assert_eq!(app.get("/api/users/1").await.status, 200);
    assert_eq!(app.get("/api/users/1").await.status, 200);
    app.get("/api/users/100000").await.problem(404);
    let same = (0..20).map(|_| app.get("/api/data/same"));
    futures_util::future::join_all(same).await;
    postgres.server.kill().await.unwrap();
    let stale = async || app.get("/api/users/1").await.header("cache-status").contains("stale");
    wait_until("an answer past its life", LIMIT, stale).await.unwrap();
    app.get("/api/users/2").await.problem(503);
}

/// Prometheus itself asks for OpenMetrics; its parser of the older text is in promtool. What that thinks of names is left
/// out, since OpenTelemetry's conventions have a gauge whose name ends with `_count`.
fn assert_readable(page: &str) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(page.as_bytes()).unwrap();
    file.rewind().unwrap();
    let mut promtool = Command::new(program("promtool"));
    let output = promtool.args(["check", "metrics", "--lint=none", "--extended"]).stdin(file).output().unwrap();
    assert!(output.status.success(), "{}\n{page}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn every_metric_asked_for_exists_with_the_labels_it_is_asked_by() {
    let mut programs = Programs::start().await;
    let postgres = OwnPostgres::start().await;
    let app = postgres.app().env("CACHE_L1_TTL", "1s").env("CACHE_L2_TTL", "1s").env("DATA_COMPUTE_TIME", "300ms");
    let app = app.env("OTEL_EXPORTER_OTLP_ENDPOINT", &programs.otlp).start().await;
    programs.watch(&app.url).await;
    session(&postgres, &app).await;
    assert_readable(&app.get("/metrics").await.text);

    // What rules record comes last; most of it are rates, which need requests between scrapes.
    let recorded = async || {
        app.get("/api/users/1").await;
        let ask = [("query", "count(slo:slow_budget_remaining:ratio7d) and count(cache:hit:ratio5m)")];
        programs.ask("query", &ask).await.unwrap()["result"][0].is_object()
    };
    wait_until("rules were evaluated", LIMIT, recorded).await.unwrap();
    let up = async || programs.ask("query", &[("query", "up == 0")]).await.unwrap()["result"] == json!([]);
    wait_until("all targets are up", LIMIT, up).await.unwrap();

    let names = programs.ask("label/__name__/values", &[]).await.unwrap();
    let names: BTreeSet<_> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let (mut missing, mut asked) = (Vec::new(), BTreeSet::new());
    for (place, query) in expressions() {
        if let Err(error) = programs.ask("query", &[("query", &query)]).await {
            missing.push(format!("{place}: {error} in {query}"));
            continue;
        }
        let mut found = Vec::new();
        selectors(&programs.ask("parse_query", &[("query", &query)]).await.unwrap(), &mut found);
        for (name, labels) in found {
            if RARE.contains(&name.as_str()) && declared(&name, &labels) {
                continue;
            }
            if !names.contains(name.as_str()) {
                missing.push(format!("{place}: nothing exports {name}"));
                continue;
            }
            let known = programs.ask("labels", &[("match[]", &name)]).await.unwrap();
            let unknown = labels.iter().find(|label| !known.as_array().unwrap().contains(&json!(label)));
            missing.extend(unknown.map(|label| format!("{place}: {name} has no label {label}, only {known}")));
            asked.insert(name);
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(asked.len() > 100, "only {} metrics are asked for", asked.len());
}
