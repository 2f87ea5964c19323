//! The Kubernetes manifests, rendered: what Kubernetes would be told, against its own types and the service's settings.

use std::collections::BTreeSet;

use devkit::{free_port, wait_until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::support::{LIMIT, Overlay, Settings, checkout, client, docker, duration, image, program, text, yaml};

/// Through the type and back: a field that Kubernetes doesn't know, or of another type, doesn't come back.
pub fn strict<T: Serialize + DeserializeOwned>(object: &Value) {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object:#}"));
    assert_eq!(&serde_json::to_value(typed).unwrap(), object);
}

#[tokio::test]
async fn every_object_is_one_that_kubernetes_understands_completely() {
    for overlay in Overlay::all().await {
        let mut kinds = BTreeSet::new();
        for object in &overlay.objects {
            let kind = text(&object["kind"]);
            match kind.as_str() {
                "ConfigMap" => strict::<ConfigMap>(object),
                "Deployment" => strict::<Deployment>(object),
                "HorizontalPodAutoscaler" => strict::<HorizontalPodAutoscaler>(object),
                "Job" => strict::<Job>(object),
                "Namespace" => strict::<Namespace>(object),
                "NetworkPolicy" => strict::<NetworkPolicy>(object),
                "PodDisruptionBudget" => strict::<PodDisruptionBudget>(object),
                "Service" => strict::<Service>(object),
                "ServiceAccount" => strict::<ServiceAccount>(object),
                // The operator's, and so not among Kubernetes' types: the next test looks at it.
                "ServiceMonitor" => {}
                other => panic!("what is a {other}?"),
            }
            assert!(kinds.insert(kind), "two of {}", object["kind"]);
            let namespace = &overlay.one("Namespace")["metadata"]["name"];
            let place = &object["metadata"]["namespace"];
            assert!(object["kind"] == "Namespace" || place == namespace, "{object}");
        }
        assert_eq!(kinds.len(), 10, "{kinds:?}");
    }
    let secret = std::fs::read_to_string(checkout("docker/kubernetes/secret.example.yaml")).unwrap();
    strict::<Secret>(&yaml(&secret)[0]);
}

#[tokio::test]
async fn prometheus_is_sent_where_metrics_are() {
    for overlay in Overlay::all().await {
        let monitor = overlay.one("ServiceMonitor");
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();

        assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
        assert_eq!(keys(monitor), ["apiVersion", "kind", "metadata", "spec"]);
        assert_eq!(keys(&monitor["spec"]), ["endpoints", "selector"]);
        let endpoint = &monitor["spec"]["endpoints"][0];
        assert_eq!(keys(endpoint), ["interval", "path", "port", "scrapeTimeout"]);
        assert_eq!((&endpoint["port"], &endpoint["path"]), (&json!("management"), &json!("/metrics")));
        assert!(duration(&text(&endpoint["scrapeTimeout"])) < duration(&text(&endpoint["interval"])));
        let wanted = &monitor["spec"]["selector"]["matchLabels"];
        assert!(within(wanted, &overlay.one("Service")["metadata"]["labels"]), "{monitor}");
    }
}

#[test]
fn kustomizations_name_every_file_beside_them() {
    for folder in ["base", "overlays/dev", "overlays/prod", "argo-rollouts", "flagger"] {
        let folder = checkout("docker/kubernetes").join(folder);
        let kustomization = &yaml(&std::fs::read_to_string(folder.join("kustomization.yaml")).unwrap())[0];
        assert_eq!(kustomization["apiVersion"], "kustomize.config.k8s.io/v1beta1");
        assert_eq!(kustomization["kind"], "Kustomization");
        let resources: Vec<&str> =
            kustomization["resources"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let named = resources.contains(&name.as_str()) || name == "kustomization.yaml" || name == "plinth.env";
            assert!(named, "{name} isn't in {}", folder.display());
        }
    }
}

/// Whether these labels are among those.
pub fn within(wanted: &Value, labels: &Value) -> bool {
    wanted.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value)
}

#[tokio::test]
async fn selectors_find_the_pods_of_the_service_and_not_the_migration() {
    for overlay in Overlay::all().await {
        let labels = |kind| &overlay.pod(kind)["metadata"]["labels"];
        let selectors = [
            &overlay.one("Deployment")["spec"]["selector"]["matchLabels"],
            &overlay.one("Service")["spec"]["selector"],
            &overlay.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        ];
        for selector in selectors {
            assert!(within(selector, labels("Deployment")) && !within(selector, labels("Job")), "{selector}");
        }
        let policy = &overlay.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"];
        assert!(within(policy, labels("Deployment")) && within(policy, labels("Job")), "{policy}");
        let scaled = &overlay.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"];
        let deployment = overlay.one("Deployment");
        assert_eq!((&scaled["kind"], &scaled["name"]), (&deployment["kind"], &deployment["metadata"]["name"]));
        assert_eq!(scaled["apiVersion"], deployment["apiVersion"]);
        assert_eq!(deployment["spec"]["replicas"], Value::Null, "the autoscaler's number would be undone");
    }
}

#[tokio::test]
async fn pods_run_the_image_as_it_is_meant_to_run() {
    let user = docker(&["inspect", "--format", "{{.Config.User}}", image().await]).await;
    for overlay in Overlay::all().await {
        for kind in ["Deployment", "Job"] {
            let pod = &overlay.pod(kind)["spec"];
            let (context, container) = (&pod["securityContext"], &pod["containers"][0]);
            assert_eq!(format!("{}:{}", context["runAsUser"], context["runAsGroup"]), user);
            assert_eq!(context["runAsNonRoot"], true);
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
            let rights = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(container["securityContext"], rights);
            let resources = json!({
                "requests": {"cpu": "100m", "memory": "64Mi"},
                "limits": {"cpu": "1", "memory": "256Mi"},
            });
            assert_eq!(container["resources"], resources);
            assert_eq!(
                (&pod["automountServiceAccountToken"], &pod["enableServiceLinks"]),
                (&json!(false), &json!(false))
            );
            assert_eq!(pod["serviceAccountName"], overlay.one("ServiceAccount")["metadata"]["name"]);
        }
        assert_eq!(overlay.pod("Job")["spec"]["containers"][0]["args"], json!(["migrate"]));
        let images = ["Deployment", "Job"].map(|kind| &overlay.pod(kind)["spec"]["containers"][0]["image"]);
        assert_eq!(images[0], images[1]);
        assert!(images[0].as_str().unwrap().contains(':') && images[0] != "plinth:latest");
    }
}

#[tokio::test]
async fn a_pod_has_time_to_leave_before_it_is_killed() {
    for overlay in Overlay::all().await {
        let environment = overlay.environment();
        let [drain, shutdown] = ["DRAIN_DELAY", "SHUTDOWN_TIMEOUT"].map(|name| duration(&environment[name]).as_secs());
        let pod = &overlay.pod("Deployment")["spec"];
        let ready = &pod["containers"][0]["readinessProbe"];

        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        // Telemetry has 2 s after it.
        assert!(grace > shutdown + 2, "{grace} s for {shutdown} s");
        assert!(shutdown > drain + duration("10s").as_secs(), "requests of REQUEST_TIMEOUT don't end in {shutdown} s");
        let seen = ready["periodSeconds"].as_u64().unwrap() * ready["failureThreshold"].as_u64().unwrap();
        assert!(
            seen + ready["timeoutSeconds"].as_u64().unwrap() < drain,
            "unready after {seen} s, gone after {drain} s"
        );
        let update = &overlay.one("Deployment")["spec"]["strategy"]["rollingUpdate"];
        assert_eq!(update, &json!({"maxSurge": 1, "maxUnavailable": 0}));
        // Of what the limit allows, not of the small request.
        let scale = &overlay.one("HorizontalPodAutoscaler")["spec"]["metrics"][0]["resource"]["target"];
        assert_eq!(scale, &json!({"type": "AverageValue", "averageValue": "700m"}));
    }
}

#[tokio::test]
async fn a_pods_environment_starts_the_service_with_probes_and_metrics_where_kubernetes_asks() {
    let settings = Settings::of_help().await;
    let example = std::fs::read_to_string(checkout("docker/kubernetes/secret.example.yaml")).unwrap();
    let secrets = yaml(&example).remove(0);
    for overlay in Overlay::all().await {
        let pod = &overlay.pod("Deployment")["spec"];
        let container = &pod["containers"][0];
        let mount = text(&container["volumeMounts"][1]["mountPath"]);
        assert_eq!(pod["volumes"][1]["secret"]["secretName"], secrets["metadata"]["name"]);
        let mut environment = overlay.environment();
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in &mut environment {
            settings.assert_known(name, &overlay.name);
            if let Some(secret) = name.strip_suffix("_FILE") {
                assert_eq!(*value, format!("{mount}/{secret}"));
                let file = folder.path().join(secret);
                std::fs::write(&file, text(&secrets["stringData"][secret])).unwrap();
                *value = file.to_str().unwrap().to_owned();
            }
        }
        let ports = container["ports"].as_array().unwrap().iter();
        let ports: Vec<_> = ports.map(|port| (text(&port["name"]), port["containerPort"].to_string())).collect();
        let of = |name: &str, setting: &str| (name.to_owned(), environment[setting].clone());
        assert_eq!(ports, [of("http", "PORT"), of("management", "MANAGEMENT_PORT")]);
        for port in overlay.one("Service")["spec"]["ports"].as_array().unwrap() {
            assert!(ports.iter().any(|(name, _)| port["targetPort"] == name.as_str()), "{port}");
        }

        // Neither its database nor its Redis exist: it waits for them, and answers meanwhile.
        let (http, management) = (free_port().unwrap(), free_port().unwrap());
        let mut service = program();
        service.args(container["args"].as_array().unwrap().iter().map(text)).envs(&environment);
        service.env("PORT", http.to_string()).env("MANAGEMENT_PORT", management.to_string());
        service.env("OTEL_SDK_DISABLED", "true").env("LOG_LEVEL", "error").env("BIND_ADDRESS", "127.0.0.1");
        let mut service = service.kill_on_drop(true).spawn().unwrap();
        let client = client();
        let status = async |port: u16, path: &str| {
            let answer = client.get(format!("http://127.0.0.1:{port}{path}")).send().await;
            answer.map_or(0, |answer| answer.status().as_u16())
        };
        let listens = async || {
            assert!(service.try_wait().unwrap().is_none(), "the service refuses what {} tells it", overlay.name);
            status(management, "/health/live").await == 200
        };
        wait_until("the service listens", LIMIT, listens).await.unwrap();

        let probes = ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| &container[probe]["httpGet"]);
        let mut answers = Vec::new();
        for probe in probes {
            assert_eq!(probe["port"], "management");
            answers.push(status(management, &text(&probe["path"])).await);
        }
        assert_eq!(answers, [503, 503, 200], "it starts and isn't ready, and must not be restarted");
        assert_eq!(status(management, "/metrics").await, 200);
        // 503 while it starts, 404 then.
        let outside = (status(http, "/metrics").await, status(http, "/health/live").await);
        assert!(outside.0 >= 400 && outside.1 >= 400, "{outside:?}");
    }
}
