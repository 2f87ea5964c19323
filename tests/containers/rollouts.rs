//! The examples for Argo Rollouts and Flagger: their fields against the manifests beside them, the service's metrics and
//! the gates of `ops`. Their own types aren't among Kubernetes', and no cluster runs them here.

use std::collections::BTreeSet;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use crate::manifests::{strict, within};
use crate::support::{Overlay, checkout, overlay, text};

/// Names of metrics in a query: what is selected by labels.
fn metrics(query: &str) -> BTreeSet<String> {
    let named = |part: &str| part.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().map(str::to_owned);
    query.split('{').filter_map(named).filter(|name| !name.is_empty()).collect()
}

/// Every query asks for metrics and labels that docs/telemetry.md lists, each of the three gates by its own.
fn assert_gates(queries: &[(&str, String)]) {
    let page = std::fs::read_to_string(checkout("docs/telemetry.md")).unwrap();
    let row = |metric: &str| page.lines().find(|line| line.starts_with(&format!("| `{metric}` |"))).map(str::to_owned);
    let expected = [
        ("error-rate", vec!["http_requests_total"]),
        ("p95-ratio", vec!["http_request_duration_seconds_bucket"]),
        ("mean-seconds", vec!["http_request_duration_seconds_count", "http_request_duration_seconds_sum"]),
    ];
    let mut found = Vec::new();
    for (name, query) in queries {
        // Braces of the tool's own templates aren't selectors.
        let query = query.replace("{{", "").replace("}}", "");
        let names = metrics(&query);
        for name in &names {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let row = row(base).unwrap_or_else(|| panic!("{base} isn't in docs/telemetry.md"));
            for label in ["http_route", "http_response_status_code"].iter().filter(|label| query.contains(**label)) {
                assert!(row.contains(&format!("`{label}`")), "{row}");
            }
        }
        assert!(query.contains(r#"http_route!~"/health.*|/metrics""#), "{query}");
        found.push((*name, names));
    }
    let expected = expected.map(|(name, names)| (name, names.into_iter().map(str::to_owned).collect()));
    assert_eq!(found, expected);
    assert!(queries[0].1.contains(r#"http_response_status_code=~"5..""#));
    assert!(queries[1].1.starts_with("histogram_quantile(0.95"));
}

fn own(overlay: &Overlay, group: &str) -> Vec<String> {
    let objects = overlay.objects.iter().filter(|object| text(&object["apiVersion"]).starts_with(group));
    objects.map(|object| text(&object["kind"])).collect()
}

#[tokio::test]
async fn argo_rolls_out_the_deployments_pods_in_judged_steps() {
    let folder = overlay("argo-rollouts").await;
    let (rollout, deployment) = (folder.one("Rollout"), folder.one("Deployment"));

    assert_eq!(own(&folder, "argoproj.io/v1alpha1"), ["AnalysisTemplate", "Rollout"]);
    // Probes and ports come with it.
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "plinth", "scaleDown": "onsuccess"});
    assert_eq!(rollout["spec"]["workloadRef"], reference);
    assert_eq!(rollout["spec"]["selector"], deployment["spec"]["selector"]);
    assert_eq!((&rollout["spec"]["template"], &rollout["spec"]["replicas"]), (&Value::Null, &Value::Null));
    for field in ["minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit"] {
        assert_eq!(rollout["spec"][field], deployment["spec"][field], "{field}");
    }
    let autoscaler = folder.one("HorizontalPodAutoscaler");
    strict::<HorizontalPodAutoscaler>(autoscaler);
    let scaled = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "plinth"});
    assert_eq!(autoscaler["spec"]["scaleTargetRef"], scaled);

    let canary = &rollout["spec"]["strategy"]["canary"];
    let steps = canary["steps"].as_array().unwrap();
    let weights: Vec<_> = steps.iter().filter_map(|step| step["setWeight"].as_u64()).collect();
    assert_eq!((weights, steps.len()), (vec![10, 50], 4));
    let template = folder.one("AnalysisTemplate");
    for step in [&steps[1], &steps[3]] {
        assert_eq!(step["analysis"]["templates"], json!([{"templateName": template["metadata"]["name"]}]));
        let names = |list: &Value| list.as_array().unwrap().iter().map(|one| text(&one["name"])).collect::<Vec<_>>();
        assert_eq!(names(&step["analysis"]["args"]), names(&template["spec"]["args"]));
    }
    let limits = ["0.02", "1.25", "1"];
    let judged = template["spec"]["metrics"].as_array().unwrap();
    for (metric, limit) in judged.iter().zip(limits) {
        assert_eq!(metric["successCondition"], format!("len(result) > 0 && result[0] < {limit}"));
        assert_eq!(metric["failureCondition"], format!("len(result) > 0 && result[0] >= {limit}"));
        assert_eq!((&metric["failureLimit"], &metric["inconclusiveLimit"]), (&json!(0), &json!(0)));
    }
    let names: Vec<_> = judged.iter().map(|metric| text(&metric["name"])).collect();
    let queries = judged.iter().map(|metric| text(&metric["provider"]["prometheus"]["query"]));
    assert_gates(&names.iter().map(String::as_str).zip(queries).collect::<Vec<_>>());

    let services = folder.objects.iter().filter(|object| object["kind"] == "Service");
    let mut names = BTreeSet::new();
    for service in services {
        strict::<Service>(service);
        assert!(within(&service["spec"]["selector"], &folder.pod("Deployment")["metadata"]["labels"]), "{service}");
        names.insert(text(&service["metadata"]["name"]));
    }
    let wanted = [&canary["stableService"], &canary["canaryService"]].map(text);
    assert_eq!(names, BTreeSet::from(wanted));
    let ingress = folder.one("Ingress");
    strict::<Ingress>(ingress);
    assert_eq!(canary["trafficRouting"]["nginx"]["stableIngress"], ingress["metadata"]["name"]);
    let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
    assert_eq!(backend, &json!({"name": canary["stableService"], "port": {"name": "http"}}));
}

#[tokio::test]
async fn flagger_shifts_traffic_in_judged_steps_and_finds_probes_and_ports_in_the_deployment() {
    let folder = overlay("flagger").await;
    let (canary, deployment) = (&folder.one("Canary")["spec"], folder.one("Deployment"));

    assert_eq!(own(&folder, "flagger.app/v1beta1"), ["Canary", "MetricTemplate", "MetricTemplate", "MetricTemplate"]);
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]});
    assert_eq!(canary["targetRef"], target);
    let autoscaler = folder.one("HorizontalPodAutoscaler");
    let named = json!({"apiVersion": autoscaler["apiVersion"], "kind": autoscaler["kind"], "name": "plinth"});
    assert_eq!(canary["autoscalerRef"], named);
    assert_eq!(canary["progressDeadlineSeconds"], deployment["spec"]["progressDeadlineSeconds"]);
    let ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|port| port["name"] == canary["service"]["targetPort"]), "{ports:?}");
    assert_eq!((&canary["service"]["port"], &canary["service"]["portDiscovery"]), (&json!(80), &json!(true)));
    let scraped = &folder.one("ServiceMonitor")["spec"]["selector"]["matchLabels"];
    for service in ["primary", "canary"] {
        assert!(within(scraped, &canary["service"][service]["labels"]), "{service}");
    }
    // It makes Services of these names itself.
    assert!(folder.objects.iter().all(|object| object["kind"] != "Service"));

    let analysis = &canary["analysis"];
    assert_eq!((&analysis["stepWeights"], &analysis["threshold"]), (&json!([10, 50]), &json!(1)));
    let mut queries = Vec::new();
    for (metric, limit) in analysis["metrics"].as_array().unwrap().iter().zip([json!(0.02), json!(1.25), json!(1)]) {
        assert_eq!(metric["thresholdRange"], json!({"max": limit}));
        let template = |object: &&Value| {
            object["kind"] == "MetricTemplate" && object["metadata"]["name"] == metric["templateRef"]["name"]
        };
        let template = folder.objects.iter().find(template).unwrap();
        assert_eq!(template["spec"]["provider"]["type"], "prometheus");
        queries.push((metric["name"].as_str().unwrap(), text(&template["spec"]["query"])));
    }
    assert_gates(&queries);

    let ingress = folder.one("Ingress");
    strict::<Ingress>(ingress);
    assert_eq!(canary["ingressRef"]["name"], ingress["metadata"]["name"]);
    strict::<NetworkPolicy>(folder.one("NetworkPolicy"));
    strict::<PodDisruptionBudget>(folder.one("PodDisruptionBudget"));
    let both = &folder.one("NetworkPolicy")["spec"]["podSelector"]["matchExpressions"][0];
    let name = json!({"key": "app.kubernetes.io/name", "operator": "In", "values": ["plinth", "plinth-primary"]});
    assert_eq!(both, &name);
}
