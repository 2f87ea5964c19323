//! What services are made of, what their tasks say, and slots whose addresses come from DNS.

use bollard::models::Task;
use serde_json::{Value, json};

use crate::balancer::stat;
use crate::deploy::parts::{Admin, Recipe, Replica};
use crate::engine::swarm::spec::{of_job, of_replicas};
use crate::engine::swarm::tasks::deaths;

const HOSTS: [&str; 4] = ["blue", "blue4", "green", "green4"];

fn blue() -> Value {
    json!({
        "Name": "plinth_service",
        "Labels": {"active": "true", "color": "blue", "ops.replicas": "3", "team": "web"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "app:1", "Env": ["A=1", "B=2"], "Healthcheck": {"Interval": 5}, "Secrets": [{"SecretID": "s"}],
            },
            "Networks": [{"Target": "front", "Aliases": ["blue", "service"]}, {"Target": "back", "Aliases": ["service"]}],
            "Unheard": {"of": true},
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "UpdateConfig": {"Order": "start-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"TargetPort": 3000}]},
    })
}

fn recipe() -> Recipe {
    Recipe { deploy: "d1".to_owned(), like: "blue1-d0".to_owned(), environment: vec!["B=3".to_owned()] }
}

#[test]
fn a_service_is_like_the_one_before_with_another_image_alias_and_labels() {
    let replica = Replica {
        slot: "green1".to_owned(),
        address: ([0, 0, 0, 0], 3000).into(),
        container: "green1-d1".to_owned(),
        image_id: String::new(),
        image: "app:2".to_owned(),
        version: "2".to_owned(),
    };

    let made = of_replicas(&blue(), &HOSTS, "plinth", "green", &replica, &recipe());

    let second = 1_000_000_000_u64;
    let by_hand = |failure: &str| json!({"Parallelism": 1, "Delay": 10 * second, "Monitor": 30 * second, "FailureAction": failure});
    let mut update = by_hand("rollback");
    update["Order"] = json!("start-first");
    let expected = json!({
        "Name": "plinth_green",
        "Labels": {
            "active": "false", "color": "green", "version": "2", "team": "web", "ops.deploy": "d1",
            "com.docker.stack.namespace": "plinth", "com.docker.stack.image": "app:2",
        },
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "app:2", "Env": ["A=1", "B=3"], "Healthcheck": {"Interval": 5, "Timeout": 10 * second},
                "Secrets": [{"SecretID": "s"}],
            },
            "Networks": [{"Target": "front", "Aliases": ["green", "service"]}, {"Target": "back", "Aliases": ["service"]}],
            "Unheard": {"of": true},
        },
        "Mode": {"Replicated": {"Replicas": 0}},
        "UpdateConfig": update,
        "RollbackConfig": by_hand("pause"),
        "EndpointSpec": {"Mode": "dnsrr"},
    });
    assert_eq!(made, expected);
}

#[test]
fn a_job_has_no_part_in_the_slots_network() {
    let made = of_job(&blue(), &HOSTS, "ops-once-d1", "app:2", &recipe(), &["migrate", "--check"]);

    assert_eq!(made["TaskTemplate"]["Networks"], json!([{"Target": "back"}]));
    assert_eq!(made["TaskTemplate"]["ContainerSpec"]["Args"], json!(["migrate", "--check"]));
    assert_eq!(made["TaskTemplate"]["ContainerSpec"]["Healthcheck"], json!({"Test": ["NONE"]}));
    assert_eq!(made["Mode"], json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}));
    assert_eq!(made["Labels"], json!({"ops.deploy": "d1"}), "no stack: it has no slots");
}

fn task(state: &str, created: &str, code: i64) -> Task {
    let status =
        json!({"State": state, "Err": "No such image", "ContainerStatus": {"ContainerID": created, "ExitCode": code}});
    serde_json::from_value(json!({"Status": status, "CreatedAt": created})).unwrap()
}

#[test]
fn tasks_that_died_are_restarts_and_ones_that_could_not_be_made_are_not() {
    let (first, last) = ("2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z");
    let alive = [task("running", first, 0), task("shutdown", last, 0)];
    let died = [task("failed", last, 3), task("failed", first, 1), task("starting", last, 0)];
    let rejected = [task("rejected", first, 0), task("preparing", last, 0)];

    assert_eq!(deaths(alive.iter()), deaths([].iter()));
    let found = deaths(died.iter());
    assert_eq!((found.restarts, found.exit_code, found.container.as_deref()), (2, 3, Some(last)));
    let found = deaths(rejected.iter());
    assert_eq!((found.restarts, found.error.as_str()), (0, "No such image"));
}

#[test]
fn a_slot_that_dns_has_no_address_for_takes_no_traffic_whatever_it_was_told() {
    let state = "1\n# srv_name srv_addr srv_admin_state srv_uweight srv_fqdn srv_port\n\
                 blue1 10.0.0.7 0 100 blue 3000\nblue2 10.0.0.8 32 100 blue 3000\ngreen1 - 37 100 green 3000\n";
    let checked = "check_health,check_rise,check_fall";
    let stat = format!(
        "# svname,status,check_status,{checked}\nblue1,UP,L7OK,3,2,2\nblue2,MAINT (resolution),L7OK,3,2,2\n\
         green1,MAINT (resolution),,0,2,2\n"
    );

    let slots = stat::slots(state, &stat).unwrap();

    let seen = slots.iter().map(|slot| (slot.admin, slot.takes_traffic(), slot.up, slot.down)).collect::<Vec<_>>();
    let expected =
        [(Admin::Ready, true, true, false), (Admin::Ready, false, false, true), (Admin::Maint, false, false, false)];
    assert_eq!(seen, expected);
    assert_eq!(slots[1].host.as_deref(), Some("blue"));
}
