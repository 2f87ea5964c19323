//! The Swarm stack: its files, and the real thing on this engine.

use std::time::Duration;

use devkit::load::Load;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    LIMIT, Settings, Stack, TOKEN, checkout, client, duration, image, mixed_load_on, output, stack, succeeded, text,
    wait_for_more,
};

#[tokio::test]
async fn the_stack_tells_the_service_only_what_it_knows_and_gives_it_time_to_leave() {
    let settings = Settings::of_help().await;
    let stack = stack(&["stack.yaml"]).await;
    for service in ["service", "migrate"] {
        for name in stack["services"][service]["environment"].as_object().unwrap().keys() {
            settings.assert_known(name, service);
        }
    }
    let service = &stack["services"]["service"];
    let of = |value: &Value| duration(&text(value));

    let [drain, shutdown] = ["DRAIN_DELAY", "SHUTDOWN_TIMEOUT"].map(|name| of(&service["environment"][name]));
    assert!(of(&service["stop_grace_period"]) > shutdown + Duration::from_secs(2));
    // The balancer's check every second, twice, fails before the replica closes its port.
    assert!(shutdown > drain && drain > Duration::from_secs(3));
    let (update, health) = (&service["deploy"]["update_config"], &service["healthcheck"]);
    assert_eq!((&update["order"], &update["parallelism"]), (&json!("start-first"), &json!(1)));
    assert_eq!(update["failure_action"], "rollback");
    let unhealthy = of(&health["start_period"]) + of(&health["interval"]) * 3;
    assert!(of(&update["monitor"]) > unhealthy && health["retries"] == 3, "{unhealthy:?}");
    let resources = json!({
        "limits": {"cpus": "1.0", "memory": "268435456", "pids": 256},
        "reservations": {"cpus": "0.1", "memory": "67108864"},
    });
    assert_eq!(service["deploy"]["resources"], resources);
    assert_eq!(service["ulimits"]["nofile"], 65536);
    for (name, secret) in stack["secrets"].as_object().unwrap() {
        assert_eq!((&secret["external"], &secret["name"]), (&json!(true), &json!(format!("plinth_{name}"))));
    }
}

#[tokio::test]
async fn on_several_machines_services_go_where_labels_say() {
    let stack = stack(&["stack.yaml", "stack.multi-node.yaml"]).await;

    let constraints = |service: &str| &stack["services"][service]["deploy"]["placement"]["constraints"];

    assert_eq!(*constraints("service"), json!(["node.role == worker", "node.labels.cpu_type == high_performance"]));
    assert_eq!(*constraints("database"), json!(["node.labels.data == true"]));
    assert_eq!(stack["services"]["balancer"]["deploy"]["mode"], "global");
}

#[test]
fn the_stacks_balancer_treats_requests_as_that_of_compose_does() {
    let [here, for_ops, there] =
        ["docker/swarm/haproxy.cfg", "docker/swarm/haproxy.ops.cfg", "docker/haproxy/haproxy.cfg"]
            .map(|file| std::fs::read_to_string(checkout(file)).unwrap());
    // Compose lets its own tests change this one.
    let compose = std::fs::read_to_string(checkout("compose.yaml")).unwrap();
    assert!(compose.contains("${RETRIES:-3}"));
    let there = there.replace("\"${RETRIES}\"", "3");
    let rules = |config: &str, section: &str| -> Vec<String> {
        let lines = config.lines().map(str::trim_end).skip_while(|line| *line != section).skip(1);
        let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' ')).map(str::trim);
        // What differs: how replicas are found, and weights that `ops` would keep.
        let own = ["", "#", "server", "default-server", "load-server-state"];
        let shared =
            lines.filter(|line| !own.iter().any(|own| line.is_empty() || (!own.is_empty() && line.starts_with(own))));
        shared.map(str::to_owned).collect()
    };
    for section in ["defaults", "frontend public", "backend service", "frontend inside"] {
        let [here, for_ops, there] = [&here, &for_ops, &there].map(|config| rules(config, section));
        assert!(!there.is_empty(), "no {section}");
        assert_eq!((&here, &for_ops), (&there, &there), "{section}");
    }
}

/// Clients of the stack, once they are at work.
async fn load(stack: &Stack) -> Load {
    let load = mixed_load_on(stack.address, TOKEN.to_owned(), Duration::from_millis(50));
    wait_for_more(&load, 500).await;
    load
}

/// The image with one more line.
async fn variant(stack: &Stack, tag: &str, line: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Dockerfile"), format!("FROM {}\n{line}\n", image().await)).unwrap();
    let tag = format!("{}:{tag}", stack.name);
    succeeded(Command::new("docker").args(["build", "--tag", &tag]).arg(folder.path()), LIMIT).await;
    tag
}

#[tokio::test]
async fn an_update_of_the_stack_starts_new_replicas_first_and_fails_no_request() {
    let stack = Stack::up().await;
    let next = variant(&stack, "next", "LABEL next=yes").await;
    let load = load(&stack).await;

    stack.deploy(&next).await;
    stack.wait_for_update("completed").await;
    let report = load.stop().await;
    println!("update: {report}");

    assert_eq!(report.failures(), 0, "{report}");
    assert_eq!(stack.update().await.1, next);
    assert_eq!(stack.container("service").await["Config"]["Image"], next);
}

#[tokio::test]
async fn an_image_that_never_gets_healthy_is_rolled_back_and_no_request_fails() {
    let stack = Stack::up().await;
    let line = r#"HEALTHCHECK CMD ["/plinth", "healthcheck", "nonsense"]"#;
    let unhealthy = variant(&stack, "unhealthy", line).await;
    let load = load(&stack).await;

    stack.deploy(&unhealthy).await;
    stack.wait_for_update("rollback_completed").await;
    let report = load.stop().await;
    println!("rollback: {report}");

    assert_eq!(report.failures(), 0, "{report}");
    assert_eq!(stack.update().await.1, image().await);
}

#[tokio::test]
async fn a_replica_of_the_stack_has_no_more_rights_than_it_needs() {
    let stack = Stack::up().await;
    let container = stack.container("service").await;

    let (host, config) = (&container["HostConfig"], &container["Config"]);
    assert_eq!((&host["ReadonlyRootfs"], &host["Init"]), (&json!(true), &json!(true)));
    assert_eq!((&host["CapDrop"], &host["PidsLimit"]), (&json!(["ALL"]), &json!(256)));
    assert_eq!((&host["Memory"], &host["NanoCpus"]), (&json!(256 << 20), &json!(1_000_000_000)));
    assert_eq!(config["User"], "1001:1001");
    assert!(!config["Env"].to_string().contains("postgres://"), "{config}");
    for service in ["service", "database", "redis"] {
        let ports = &stack.container(service).await["NetworkSettings"]["Ports"];
        let published = ports.as_object().unwrap().values().any(|port| !port.is_null());
        assert!(!published, "{service} is published: {ports}");
    }
    let balancer = text(&stack.container("balancer").await["Id"]);
    let reach = async |target: &str| {
        let reached =
            output(&["exec", &balancer, "timeout", "5", "bash", "-c", &format!(": >/dev/tcp/{target}")]).await;
        reached.status.success()
    };
    assert!(reach("service/3000").await);
    assert!(!reach("database/5432").await && !reach("redis/6379").await, "the balancer reaches the database");
    for path in ["metrics", "%6detrics", "log%2Dfilter"] {
        let answer = client().get(format!("http://{}/{path}", stack.address)).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path} is each replica's own");
    }
}
