//! The real programs with the real configuration, moved to free ports of loopback and to intervals of a second.

use std::process::Stdio;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use devkit::{free_port, wait_until};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::files::{list, parse, path, program, read, stem};

/// Generous: it bounds what hangs, and measures nothing.
pub const LIMIT: Duration = Duration::from_secs(120);
const EXPOSITIONS: &str = "tests/monitoring/expositions";

/// Prometheus, Alertmanager, Jaeger and node-exporter. They end with the value.
pub struct Programs {
    pub prometheus: String,
    pub jaeger: String,
    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub otlp: String,
    client: Client,
    children: Vec<Child>,
    folder: TempDir,
    exporter: String,
    jaeger_metrics: String,
    stand_ins: String,
}

impl Programs {
    /// All but Prometheus, which needs to know where the service is.
    pub async fn start() -> Self {
        let mut programs = Self {
            prometheus: String::new(),
            jaeger: String::new(),
            otlp: String::new(),
            client: crate::support::client(),
            children: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            exporter: String::new(),
            jaeger_metrics: String::new(),
            stand_ins: stand_ins(),
        };
        let at = programs.run("jaeger", 6, "/status", jaeger_arguments).await;
        programs.jaeger = format!("http://{}", at[1]);
        programs.otlp = format!("http://{}", at[2]);
        programs.jaeger_metrics.clone_from(&at[3]);
        let textfiles = programs.folder.path().join("metrics");
        std::fs::create_dir(&textfiles).unwrap();
        std::fs::copy(path(&format!("{EXPOSITIONS}/ops.prom")), textfiles.join("ops.prom")).unwrap();
        let textfiles = format!("--collector.textfile.directory={}", textfiles.display());
        let arguments = |at: &[String]| vec![format!("--web.listen-address={}", at[0]), textfiles.clone()];
        programs.exporter = programs.run("node_exporter", 1, "/metrics", arguments).await.remove(0);
        programs
    }

    /// Prometheus with this replica, and the Alertmanager that it tells.
    pub async fn watch(&mut self, replica: &str) {
        let data = self.folder.path().to_owned();
        let arguments = |at: &[String]| {
            vec![
                "--config.file=docker/alertmanager/alertmanager.yml".to_owned(),
                "--cluster.listen-address=".to_owned(),
                format!("--storage.path={}/alertmanager", data.display()),
                format!("--web.listen-address={}", at[0]),
            ]
        };
        let alertmanager = self.run("alertmanager", 1, "/-/ready", arguments).await.remove(0);
        let file = data.join("prometheus.yml");
        let config = self.configuration(&alertmanager, replica.trim_start_matches("http://"));
        let arguments = |at: &[String]| {
            std::fs::write(&file, config.to_string().replace("localhost:9090", &at[0])).unwrap();
            vec![
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}/prometheus", data.display()),
                "--enable-feature=exemplar-storage".to_owned(),
                format!("--web.listen-address={}", at[0]),
            ]
        };
        self.prometheus = format!("http://{}", self.run("prometheus", 1, "/-/ready", arguments).await[0]);
    }

    /// `docker/prometheus/prometheus.yml` with other targets and times.
    fn configuration(&self, alertmanager: &str, replica: &str) -> Value {
        let mut config: Value = parse("docker/prometheus/prometheus.yml");
        config["global"] = json!({"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"});
        config["rule_files"] = json!([path("docker/prometheus/rules/*.yml").display().to_string()]);
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = json!([alertmanager]);
        config.as_object_mut().unwrap().remove("scrape_config_files");
        for job in config["scrape_configs"].as_array_mut().unwrap() {
            let name = job["job_name"].as_str().unwrap().to_owned();
            let target = match name.as_str() {
                "applications" => replica,
                "node-exporter" => &self.exporter,
                "jaeger" => &self.jaeger_metrics,
                "prometheus" => "localhost:9090",
                "alertmanager" => alertmanager,
                _ => {
                    job["metrics_path"] = format!("/{name}").into();
                    &self.stand_ins
                }
            };
            let job = job.as_object_mut().unwrap();
            for time in ["scrape_interval", "scrape_timeout", "dns_sd_configs"] {
                job.remove(time);
            }
            let labels = job.get("static_configs").map_or(json!({}), |targets| targets[0]["labels"].clone());
            job.insert("static_configs".to_owned(), json!([{"targets": [target], "labels": labels}]));
        }
        config
    }

    /// Runs a program on so many free addresses, and waits until the first of them answers at `health`. A port may be
    /// taken by another before the program has it; then it ends, and gets others.
    async fn run(
        &mut self,
        name: &str,
        addresses: usize,
        health: &str,
        arguments: impl Fn(&[String]) -> Vec<String>,
    ) -> Vec<String> {
        for _ in 0..5 {
            let at: Vec<_> = (0..addresses).map(|_| format!("127.0.0.1:{}", free_port().unwrap())).collect();
            let mut command = Command::new(program(name));
            command.args(arguments(&at)).current_dir(path("")).kill_on_drop(true);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let url = format!("http://{}{health}", at[0]);
            let mut ended = false;
            let settled = async || {
                ended = child.try_wait().unwrap().is_some();
                ended || self.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
            };
            wait_until(&format!("{name} is up"), LIMIT, settled).await.unwrap();
            if !ended {
                self.children.push(child);
                return at;
            }
        }
        panic!("{name} ended by itself each time it was started");
    }

    /// What Prometheus' API answers, if it takes the question.
    pub async fn ask(&self, call: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{call}", self.prometheus), parameters).unwrap();
        let answer: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer["error"].to_string()),
        }
    }
}

/// Health first, then queries, OTLP by HTTP, metrics.
fn jaeger_arguments(at: &[String]) -> Vec<String> {
    let port = at[3].rsplit_once(':').unwrap().1;
    let reader = format!("[{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]");
    let settings = [
        ("extensions.healthcheckv2.http.endpoint", at[0].as_str()),
        ("extensions.jaeger_query.http.endpoint", &at[1]),
        ("receivers.otlp.protocols.http.endpoint", &at[2]),
        ("service.telemetry.metrics.readers", &reader),
        ("extensions.jaeger_query.grpc.endpoint", &at[4]),
        ("receivers.otlp.protocols.grpc.endpoint", &at[5]),
    ];
    let config = ["--config=docker/jaeger/config.yaml".to_owned()];
    config.into_iter().chain(settings.map(|(key, value)| format!("--set={key}={value}"))).collect()
}

/// A server for what can't be started here: at `/cadvisor` and so on, what such a program was seen to answer.
fn stand_ins() -> String {
    async fn exposition(name: web::Path<String>) -> HttpResponse {
        let name = match name.as_str() {
            "postgres" | "redis" => format!("{name}_exporter"),
            other => other.to_owned(),
        };
        match list(EXPOSITIONS, ".prom").iter().find(|file| stem(file) == name) {
            Some(file) => HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(read(file)),
            None => HttpResponse::NotFound().finish(),
        }
    }
    let server = HttpServer::new(|| App::new().route("/{name}", web::get().to(exposition)));
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    tokio::spawn(server.run());
    address.to_string()
}
