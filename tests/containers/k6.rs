//! The load tests of `k6/`, for seconds each, through the balancer.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use devkit::{Fault, FaultProxy};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{LIMIT, Project, checkout, client};

const SCRIPTS: [&str; 6] = ["smoke", "load", "stress", "spike", "soak", "breakpoint"];

/// k6's exit code when a threshold was crossed.
const MISSED: i32 = 99;

/// A target and a folder for results.
struct Runner {
    target: SocketAddr,
    token: String,
    results: tempfile::TempDir,
}

impl Runner {
    fn new(target: SocketAddr, token: String) -> Self {
        Self { target, token, results: tempfile::tempdir().unwrap() }
    }

    /// `k6/run SCRIPT` with these variables and arguments.
    async fn run(&self, script: &str, settings: &[(&str, &str)], args: &[&str]) -> Output {
        let mut command = Command::new(checkout("k6/run"));
        command.arg(script).arg("--quiet").args(args).env("TARGET", format!("http://{}", self.target));
        command.env("API_TOKEN", &self.token).env("RESULTS", self.results.path()).env("USERS", "10");
        command.envs([("RATE", "20"), ("DURATION", "6s"), ("CLIENTS", "500")]).envs(settings.iter().copied());
        finished(&mut command).await
    }

    /// What the run wrote.
    fn result(&self, script: &str) -> Value {
        let file = self.results.path().join(format!("{script}.json"));
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    fn page(&self, script: &str) -> String {
        std::fs::read_to_string(self.results.path().join(format!("{script}.html"))).unwrap()
    }
}

async fn finished(command: &mut Command) -> Output {
    assert!(devkit::find("k6").is_some(), "there is no `k6` on this machine: docs/load-testing.md says how to get it");
    tokio::time::timeout(LIMIT, command.kill_on_drop(true).output()).await.expect("k6 ends").unwrap()
}

fn count(result: &Value, metric: &str, value: &str) -> f64 {
    result["metrics"][metric]["values"][value].as_f64().unwrap_or_else(|| panic!("no {value} of {metric}: {result:#}"))
}

#[tokio::test]
async fn every_script_runs_through_the_balancer_and_keeps_its_results() {
    let project = Project::up(&[]).await;
    let runner = Runner::new(project.address().await, project.token().await);
    // Late answers of a machine that is busy with other tests say nothing about the scripts.
    let patient = r#"{"availability": 0.999, "latency": {"seconds": 10, "share": 0.99}}"#;
    let objectives = runner.results.path().join("objectives.json");
    std::fs::write(&objectives, patient).unwrap();
    for script in SCRIPTS {
        let output = runner.run(script, &[("OBJECTIVES", objectives.to_str().unwrap())], &[]).await;

        let result = runner.result(script);
        assert_eq!(output.status.code(), Some(0), "{script} missed {}: {output:?}", result["missed"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("every objective met"), "{output:?}");
        assert_eq!(result["script"], script);
        assert_eq!(result["target"], format!("http://{}", runner.target));
        assert!(count(&result, "http_reqs{mix:api}", "count") >= 40.0, "{script}");
        assert_eq!(count(&result, "http_req_failed{mix:api}", "passes"), 0.0, "{script}");
        assert!(!result.to_string().contains(&runner.token), "{script} keeps the token");
        let page = runner.page(script);
        assert!(page.contains("<html") && !page.contains("src=\"http") && !page.contains("href=\"http"), "{script}");
    }
    // What the runs made is gone.
    let users = format!("http://{}/api/users", runner.target);
    let left: Value = client().get(users).send().await.unwrap().json().await.unwrap();
    assert_eq!(left["users"], serde_json::json!([]));
}

#[tokio::test]
async fn one_request_of_twenty_writes_and_each_brings_its_trace() {
    let project = Project::up(&[]).await;
    let runner = Runner::new(project.address().await, project.token().await);

    let output = runner.run("smoke", &[("RATE", "200"), ("DURATION", "5s")], &["--http-debug"]).await;

    let debug = String::from_utf8_lossy(&output.stderr);
    let headers = debug.split("raceparent: ").skip(1).filter_map(|rest| rest.get(..55));
    let sent: BTreeSet<&str> = headers.filter_map(|header| header.split('-').nth(1)).collect();
    let log = project.compose(&["logs", "--no-log-prefix", "blue1", "blue2"]).await;
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ours = lines.iter().filter(|line| sent.contains(line["trace_id"].as_str().unwrap_or_default())).count();
    assert!(sent.len() > 900 && ours >= sent.len(), "{ours} lines of the service for {} requests", sent.len());
    let writes = count(&runner.result("smoke"), "http_reqs{mix:api,kind:write}", "count");
    let all = count(&runner.result("smoke"), "http_reqs{mix:api}", "count");
    // 50 of 1000; so far off once in ten million runs.
    assert!((15.0..=90.0).contains(&writes), "{writes} of {all}");
}

#[tokio::test]
async fn every_script_fails_when_answers_are_late() {
    let project = Project::up(&[]).await;
    let proxy = FaultProxy::start(project.address().await).await.unwrap();
    proxy.set(Fault::Latency(Duration::from_millis(300)));
    let runner = Runner::new(proxy.addr(), project.token().await);
    for script in SCRIPTS {
        let output = runner.run(script, &[], &[]).await;

        let missed = runner.result(script)["missed"].to_string();
        assert_eq!(output.status.code(), Some(MISSED), "{script}: {output:?}");
        assert!(missed.contains("http_req_duration{mix:api}: p(99)<250"), "{script} missed {missed}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("missed:"), "{output:?}");
    }
}

#[tokio::test]
async fn a_slow_computation_or_a_refused_write_misses_an_objective() {
    let project = Project::up(&[("DATA_COMPUTE_TIME", "1s")]).await;
    let mut runner = Runner::new(project.address().await, project.token().await);
    // A skew of 0, so that values are computed all the time.
    let settings = [("SKEW", "0"), ("USERS", "100")];

    let output = runner.run("smoke", &settings, &[]).await;

    assert_eq!(output.status.code(), Some(MISSED), "{output:?}");
    let missed = runner.result("smoke")["missed"].clone();
    assert_eq!(missed, serde_json::json!(["http_req_duration{mix:api}: p(99)<250"]));

    runner.token = "not-the-token".to_owned();
    let output = runner.run("smoke", &[], &[]).await;
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't make users"), "{output:?}");
}

#[tokio::test]
async fn popular_users_are_drawn_as_often_as_zipf_says() {
    let script = checkout("tests/containers/k6/zipf.js");

    let output = finished(Command::new("k6").args(["run", "--quiet", "--no-usage-report"]).arg(script)).await;

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
