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
        let at = || format!("127.0.0.1:{}", free_port().unwrap());
        let (query, otlp, metrics, health, exporter) = (at(), at(), at(), at(), at());
        let mut programs = Self {
            prometheus: String::new(),
            jaeger: format!("http://{query}"),
            otlp: format!("http://{otlp}"),
            client: crate::support::client(),
            children: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            exporter: exporter.clone(),
            jaeger_metrics: metrics.clone(),
            stand_ins: stand_ins(),
        };
        let port = metrics.rsplit_once(':').unwrap().1;
        programs.run("jaeger", &[
            "--config=docker/jaeger/config.yaml",
            &format!("--set=extensions.jaeger_query.http.endpoint={query}"),
            &format!("--set=extensions.jaeger_query.grpc.endpoint={}", at()),
            &format!("--set=extensions.healthcheckv2.http.endpoint={health}"),
            &format!("--set=receivers.otlp.protocols.http.endpoint={otlp}"),
            &format!("--set=receivers.otlp.protocols.grpc.endpoint={}", at()),
            &format!("--set=service.telemetry.metrics.readers=[{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]"),
        ]);
        let textfiles = programs.folder.path().join("metrics");
        std::fs::create_dir(&textfiles).unwrap();
        std::fs::copy(path(&format!("{EXPOSITIONS}/ops.prom")), textfiles.join("ops.prom")).unwrap();
        let textfiles = format!("--collector.textfile.directory={}", textfiles.display());
        programs.run("node_exporter", &[&format!("--web.listen-address={exporter}"), &textfiles]);
        programs.wait_for("Jaeger", &format!("http://{health}/status")).await;
        programs
    }

    /// Prometheus with these replicas, and the Alertmanager that it tells.
    pub async fn watch(&mut self, replica: &str) {
        let (prometheus, alertmanager) = (free_port().unwrap(), free_port().unwrap());
        let (prometheus, alertmanager) = (format!("127.0.0.1:{prometheus}"), format!("127.0.0.1:{alertmanager}"));
        let config = self.configuration(&prometheus, &alertmanager, replica.trim_start_matches("http://"));
        let file = self.folder.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let data = self.folder.path().display().to_string();
        self.run(
            "alertmanager",
            &[
                "--config.file=docker/alertmanager/alertmanager.yml",
                "--cluster.listen-address=",
                &format!("--storage.path={data}/alertmanager"),
                &format!("--web.listen-address={alertmanager}"),
            ],
        );
        self.run(
            "prometheus",
            &[
                &format!("--config.file={}", file.display()),
                &format!("--storage.tsdb.path={data}/prometheus"),
                "--enable-feature=exemplar-storage",
                &format!("--web.listen-address={prometheus}"),
            ],
        );
        self.prometheus = format!("http://{prometheus}");
        self.wait_for("Prometheus", &format!("http://{prometheus}/-/ready")).await;
    }

    /// `docker/prometheus/prometheus.yml` with other targets and times.
    fn configuration(&self, prometheus: &str, alertmanager: &str, replica: &str) -> Value {
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
                "prometheus" => prometheus,
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

    fn run(&mut self, name: &str, arguments: &[&str]) {
        let mut command = Command::new(program(name));
        command.args(arguments).current_dir(path("")).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        self.children.push(command.spawn().unwrap());
    }

    async fn wait_for(&self, what: &str, url: &str) {
        let up = async || self.client.get(url).send().await.is_ok_and(|answer| answer.status().is_success());
        wait_until(&format!("{what} is up"), LIMIT, up).await.unwrap();
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
