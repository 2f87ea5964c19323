//! `compose.yaml`: one command, and everything is there, healthy and shut off from what it doesn't need.

use devkit::{versions, wait_until};
use serde_json::{Value, json};

use crate::support::{LIMIT, Project, client, docker, output};

#[tokio::test]
async fn one_command_brings_up_a_system_that_serves_and_another_leaves_nothing_of_it() {
    let project = Project::up(&[]).await;
    let url = format!("http://{}", project.address().await);
    let client = client();
    let token = project.token().await;

    let user = json!({"name": "Ada", "email": "ada@example.com"});
    let created = client.post(format!("{url}/api/users")).bearer_auth(&token).json(&user).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let created: Value = created.json().await.unwrap();
    let read = client.get(format!("{url}/api/users/{}", created["user"]["id"])).send().await.unwrap();
    assert_eq!(read.json::<Value>().await.unwrap()["user"], created["user"]);
    let health: Value = client.get(format!("{url}/health")).send().await.unwrap().json().await.unwrap();
    assert_eq!(health["status"], "healthy", "{health}");

    project.compose(&["down", "--volumes"]).await;
    let label = format!("label=com.docker.compose.project={}", project.name);
    for list in [&["ps", "--all", "--quiet"][..], &["volume", "ls", "--quiet"], &["network", "ls", "--quiet"]] {
        assert_eq!(docker(&[list, &["--filter", &label]].concat()).await, "", "{list:?}");
    }
}

#[tokio::test]
async fn valkey_serves_as_well_as_redis() {
    let project = Project::up(&[("REDIS_IMAGE", versions::image("VALKEY").unwrap())]).await;
    let url = format!("http://{}", project.address().await);
    let (client, token) = (client(), project.token().await);

    let version = project.compose(&["exec", "redis", "valkey-server", "--version"]).await;
    assert!(version.starts_with("Valkey server"), "{version}");
    let health: Value = client.get(format!("{url}/health")).send().await.unwrap().json().await.unwrap();
    assert_eq!(health["services"]["redis"], "healthy", "{health}");
    // Such values live there alone.
    let value = format!("{url}/api/cache/greeting");
    let put = client.put(&value).bearer_auth(&token).json(&json!({"hello": "valkey"})).send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");
    let read: Value = client.get(&value).send().await.unwrap().json().await.unwrap();
    assert_eq!(read["value"], json!({"hello": "valkey"}));
}

#[tokio::test]
async fn the_balancer_alone_is_published_and_says_who_the_client_is() {
    let project = Project::up(&[]).await;
    let url = format!("http://{}", project.address().await);
    let client = client();

    for _ in 0..2 {
        let request = client.get(format!("{url}/api/test")).header("X-Request-Id", "of-the-client");
        let request = request.header("X-Forwarded-For", "192.0.2.1").header("Forwarded", "for=192.0.2.1");
        assert_eq!(request.send().await.unwrap().headers()["x-request-id"], "of-the-client");
    }
    let drawn = client.get(format!("{url}/api/test")).header("X-Request-Id", "not ok\\").send().await.unwrap();
    let drawn = drawn.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(drawn.len(), 36, "HAProxy's, not the client's: {drawn}");
    let count = |lines: &[Value], id: &str| lines.iter().filter(|line| line["request_id"] == id).count();
    let replicas = ["blue1", "blue2"];
    let written = async || {
        let lines = logged(&project, &replicas).await;
        count(&lines, "of-the-client") >= 2 && count(&lines, &drawn) >= 1
    };
    wait_until("the requests' lines", LIMIT, written).await.unwrap();
    let lines = logged(&project, &replicas).await;
    assert_eq!((count(&lines, "of-the-client"), count(&lines, &drawn)), (2, 1));
    let edge = format!("{{{{(index .NetworkSettings.Networks \"{}_edge\").Gateway}}}}", project.name);
    let host = docker(&["inspect", "--format", &edge, &project.container("balancer").await]).await;
    for line in lines.iter().filter(|line| line["url.path"] == "/api/test") {
        assert_eq!(line["client.address"], host.as_str(), "the balancer's word, and not the client's");
    }

    for path in ["metrics", "%6detrics", "log-filter", "log%2Dfilter"] {
        let answer = client.get(format!("{url}/{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path} is each replica's own");
    }
    for service in ["database", "redis", "blue1", "blue2"] {
        let ports = docker(&["port", &project.container(service).await]).await;
        assert_eq!(ports, "", "{service} is published");
    }
    // Where the balancer is, the database can't even be found.
    let balancer = project.container("balancer").await;
    for target in ["database/5432", "redis/6379"] {
        let reached =
            output(&["exec", &balancer, "timeout", "5", "bash", "-c", &format!(": >/dev/tcp/{target}")]).await;
        assert!(!reached.status.success(), "the balancer reaches {target}");
    }
    let reached = output(&["exec", &balancer, "timeout", "5", "bash", "-c", ": >/dev/tcp/blue1/3000"]).await;
    assert!(reached.status.success(), "{reached:?}");
}

#[tokio::test]
async fn what_the_balancer_answers_itself_is_a_problem_and_is_logged() {
    let project = Project::up(&[]).await;
    let (url, client) = (format!("http://{}", project.address().await), client());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = async |path: &str| {
        let request = client.get(format!("{url}{path}")).header("X-Request-Id", "of-the-client");
        let answer = request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01")).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()["x-request-id"], "of-the-client");
        let again = answer.headers().get("retry-after").map(|after| after.to_str().unwrap().to_owned());
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((&problem["instance"], &problem["trace_id"]), (&json!(path), &json!(trace)));
        (problem["status"].as_u64().unwrap(), again)
    };
    assert_eq!(ask("/metrics").await, (404, None));
    project.compose(&["stop", "--timeout", "10", "blue1", "blue2"]).await;

    assert_eq!(ask("/api/test").await, (503, Some("1".to_owned())));
    let drawn: Value = client.get(format!("{url}/api/users")).send().await.unwrap().json().await.unwrap();
    let drawn = drawn["trace_id"].as_str().unwrap().to_owned();
    assert!(drawn.len() == 32 && drawn.chars().all(|one| one.is_ascii_hexdigit()), "{drawn}");
    let logged = async || {
        let text = project.compose(&["logs", "--no-log-prefix", "balancer"]).await;
        text.lines()
            .any(|line| line.contains(" 503 ") && line.contains("of-the-client") && line.contains("GET /api/test"))
    };
    wait_until("the balancer's line", LIMIT, logged).await.unwrap();
}

#[tokio::test]
async fn which_replica_answers_has_nothing_to_do_with_the_order_of_requests() {
    let project = Project::up(&[]).await;
    let (url, client) = (format!("http://{}/api/test", project.address().await), client());

    // In turns, one replica would get everything of one kind; a canary would then be judged by what it was asked.
    for _ in 0..32 {
        for kind in ["one", "other"] {
            let request = client.get(&url).header("X-Request-Id", kind);
            assert_eq!(request.send().await.unwrap().status(), 200);
        }
    }

    for replica in ["blue1", "blue2"] {
        let lines = logged(&project, &[replica]).await;
        for kind in ["one", "other"] {
            assert!(lines.iter().any(|line| line["request_id"] == kind), "{replica} was never asked for {kind}");
        }
    }
}

/// The lines of requests in these replicas' logs.
async fn logged(project: &Project, replicas: &[&str]) -> Vec<Value> {
    let text = project.compose(&[&["logs", "--no-log-prefix"], replicas].concat()).await;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "access").collect()
}

#[tokio::test]
async fn containers_have_limits_and_no_more_rights_than_they_need() {
    let project = Project::up(&[]).await;
    let services = ["database", "redis", "blue1", "blue2", "balancer"];

    for service in services {
        let container = project.container(service).await;
        let inspected: Value = serde_json::from_str(&docker(&["inspect", &container]).await).unwrap();
        let (host, config) = (&inspected[0]["HostConfig"], &inspected[0]["Config"]);
        assert_eq!(host["ReadonlyRootfs"], true, "{service}");
        assert_eq!((&host["CapDrop"], &host["CapAdd"]), (&json!(["ALL"]), &Value::Null), "{service}");
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges:true"]), "{service}");
        assert_eq!((&host["Init"], &host["PidsLimit"]), (&json!(true), &json!(256)), "{service}");
        assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped", "{service}");
        assert_eq!(host["LogConfig"]["Config"], json!({"max-size": "10m", "max-file": "3"}), "{service}");
        assert!(host["Memory"].as_u64().unwrap() > 0 && host["NanoCpus"].as_u64().unwrap() > 0, "{service}");
        let environment = config["Env"].to_string();
        assert!(!environment.contains("plinth:") && !environment.contains("PASSWORD="), "{environment}");
    }
    let container = project.container("blue1").await;
    let limits = "{{.HostConfig.Memory}} {{.HostConfig.MemoryReservation}} {{.HostConfig.NanoCpus}}";
    let limits = docker(&["inspect", "--format", limits, &container]).await;
    assert_eq!(limits, format!("{} {} 1000000000", 256 << 20, 64 << 20));
    // The service is told of them by its cgroup.
    let url = format!("http://{}", project.address().await);
    let health: Value = client().get(format!("{url}/health")).send().await.unwrap().json().await.unwrap();
    assert_eq!(health["memory"]["limit_bytes"], 256 << 20);
    // Its admin socket is HAProxy's alone.
    let socket = ["exec", &project.container("balancer").await, "stat", "-c", "%a %U", "/run/haproxy/admin.sock"];
    assert_eq!(docker(&socket).await, "600 haproxy");
}

#[tokio::test]
async fn defaults_are_those_of_the_documentation() {
    let project = Project::new(&[("NOFILE", ""), ("PUBLISH", "")]).await;

    let config: Value = serde_json::from_str(&project.compose(&["config", "--format", "json"]).await).unwrap();

    let blue = &config["services"]["blue1"];
    assert_eq!(blue["ulimits"]["nofile"], 65536);
    assert_eq!(config["services"]["balancer"]["ports"][0]["published"], "8080");
    assert_eq!(blue["healthcheck"]["interval"], "5s");
    // Above SHUTDOWN_TIMEOUT and the 2 s of telemetry.
    assert_eq!(blue["stop_grace_period"], "30s");
    assert_eq!(blue["deploy"]["resources"]["reservations"], json!({"cpus": 0.1, "memory": "67108864"}));
}
