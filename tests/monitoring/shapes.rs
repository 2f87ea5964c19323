//! Files of programs that can't be started everywhere (Grafana, Elasticsearch, Kibana, Logstash): their shape.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::boards::boards;
use crate::files::{list, parse, read, stem};

/// Grafana's names of the units in use.
const UNITS: [&str; 8] = ["Bps", "bytes", "none", "ops", "percent", "percentunit", "reqps", "s"];
const COMPOSE: &str = "docker/monitoring.compose.yaml";

#[test]
fn every_dashboard_is_complete() {
    let mut ids = BTreeSet::new();
    for file in list("docker/grafana/dashboards", ".json") {
        let board: Value = serde_json::from_str(&read(&file)).unwrap();
        assert_eq!(board["uid"], format!("plinth-{}", stem(&file)));
        assert!(ids.insert(board["uid"].as_str().unwrap().to_owned()), "{file} has another's uid");
        let variables = board["templating"]["list"].as_array().unwrap();
        let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["datasource", "environment", "service", "instance"], "{file}");
        let mut panels = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
            assert!(UNITS.contains(&unit), "{} in {file} has no unit that Grafana knows: {unit:?}", panel["title"]);
            assert!(panels.insert(panel["id"].as_u64()), "{file}: an id twice");
            let place = &panel["gridPos"];
            assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{file}: {}", panel["title"]);
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(target["datasource"]["uid"], "${datasource}");
            }
        }
    }
    assert_eq!(ids.len(), 8);
    assert_eq!(ids.len(), boards().len(), "a dashboard without a source");
}

#[test]
fn grafana_leads_from_exemplars_to_traces_and_from_traces_to_logs() {
    let sources: Value = parse("docker/grafana/provisioning/datasources/all.yml");
    let sources = sources["datasources"].as_array().unwrap();
    let find = |uid: &str| sources.iter().find(|source| source["uid"] == uid).unwrap_or_else(|| panic!("no {uid}"));
    let ids: BTreeSet<_> = sources.iter().map(|source| source["uid"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), sources.len(), "a uid twice");
    let exemplars = &find("prometheus")["jsonData"]["exemplarTraceIdDestinations"][0];
    assert_eq!((&exemplars["name"], &exemplars["datasourceUid"]), (&"trace_id".into(), &"jaeger".into()));
    let logs = &find("jaeger")["jsonData"]["tracesToLogsV2"];
    assert_eq!(find(logs["datasourceUid"].as_str().unwrap())["type"], "elasticsearch");
    assert!(logs["query"].as_str().unwrap().starts_with("trace_id:"), "{logs}");
    let back = &find("elasticsearch")["jsonData"]["dataLinks"][0];
    assert_eq!((&back["field"], &back["datasourceUid"]), (&"trace_id".into(), &"jaeger".into()));
}

#[test]
fn the_log_pipeline_agrees_on_one_name_and_on_the_fields_of_a_line() {
    let json = |file: &str| serde_json::from_str::<Value>(&read(file)).unwrap();
    let template = json("docker/logs/elasticsearch/index-template.json");
    assert_eq!(template["index_patterns"][0], "plinth");
    assert_eq!(template["template"]["settings"]["index.lifecycle.name"], "plinth");
    assert!(json("docker/logs/elasticsearch/ilm-policy.json")["policy"]["phases"]["delete"].is_object());
    assert!(read("docker/logs/logstash/pipeline.conf").contains("index => \"plinth\""));
    let fields = template["template"]["mappings"]["properties"].as_object().unwrap();
    let saved = read("docker/logs/kibana/saved.ndjson");
    let saved: Vec<Value> = saved.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let search = saved.iter().find(|object| object["type"] == "search").unwrap();
    assert_eq!(search["references"][0]["id"], saved[0]["id"]);
    for column in search["attributes"]["columns"].as_array().unwrap() {
        assert!(fields.contains_key(column.as_str().unwrap()), "the saved search shows {column}, which isn't mapped");
    }
    let source = search["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"].as_str().unwrap();
    let query = serde_json::from_str::<Value>(source).unwrap()["query"]["query"].clone();
    assert_eq!(query, "trace_id: *");
}

#[test]
fn nothing_is_published_but_on_loopback_and_every_image_has_a_version() {
    let compose: Value = parse(COMPOSE);
    for (name, service) in compose["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
        assert!(tag.contains('.') && tag != "latest", "{name}: {image}");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
        let limits = &service["deploy"]["resources"]["limits"];
        assert!(limits["memory"].is_string() && limits["cpus"].is_string(), "{name} has no limits: {service}");
    }
    assert!(compose["services"]["elasticsearch"]["ports"].is_null());
    let published = [
        ("prometheus", "9090"),
        ("alertmanager", "9093"),
        ("grafana", "3001"),
        ("jaeger", "16686"),
        ("kibana", "5601"),
    ];
    for (name, port) in published {
        let found = compose["services"][name]["ports"][0].as_str().unwrap();
        assert!(found.contains(&format!(":-{port}}}")), "{name} publishes {found}");
    }
}

#[test]
fn services_that_run_once_are_not_missed_when_they_end() {
    let alerts: Value = parse("docker/prometheus/alerts/containers.yml");
    let down = alerts.as_array().unwrap().iter().find(|alert| alert["alert"] == "ContainerDown").unwrap();
    let left_out = down["expr"].as_str().unwrap().split("service!~\"|").nth(1).unwrap().split('"').next().unwrap();
    let mut once: Vec<_> = Vec::new();
    for file in [COMPOSE, "compose.yaml"] {
        let services = parse::<Value>(file)["services"].clone();
        for (name, service) in services.as_object().unwrap() {
            if service["restart"].as_str().is_some_and(|policy| policy.starts_with("on-failure")) {
                once.push(name.clone());
            }
        }
    }
    let mut left_out: Vec<_> = left_out.split('|').collect();
    once.sort();
    left_out.sort_unstable();
    assert_eq!(left_out, once, "those that ContainerDown leaves out, and those of compose that end by themselves");
}
