//! A canary must not get out, wherever it was put.

use crate::container::facts::Facts;
use crate::container::secrets::{HIDDEN, Secrets};
use bollard::models::{ContainerConfig, ContainerInspectResponse};

const CANARY: &str = "canary-4f9Qx";

fn container(environment: &[&str], labels: &[(&str, &str)], arguments: &[&str]) -> ContainerInspectResponse {
    let own = |texts: &[&str]| Some(texts.iter().map(|&text| text.to_owned()).collect());
    ContainerInspectResponse {
        path: Some("server".to_owned()),
        args: own(arguments),
        config: Some(ContainerConfig {
            env: own(environment),
            labels: Some(labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()),
            ..ContainerConfig::default()
        }),
        ..ContainerInspectResponse::default()
    }
}

/// What would be shown of this container.
fn shown(inspect: &ContainerInspectResponse) -> String {
    let facts = Secrets::of(inspect).scrub(&Facts::read(inspect, 0.0)).unwrap();
    serde_json::to_string(&facts).unwrap()
}

#[test]
fn environment_is_hidden_by_name_and_by_place_in_a_url() {
    for line in [
        "DB_PASSWORD=@",
        "API_TOKEN=@",
        "MY_APIKEY=@",
        "SSH_PRIVATE=@",
        "DATABASE_URL=postgres://app:@@db/app",
        "KEY=@",
    ] {
        let text = shown(&container(&[&line.replacen('@', CANARY, 1)], &[], &[]));
        assert!(!text.contains(CANARY) && text.contains(HIDDEN), "{line}: {text}");
    }
}

#[test]
fn environment_is_hidden_by_looking_like_a_secret() {
    for value in ["8f14e45fceea167a5a36dedd4bea2543", "q7Zp2LmX9vKc4TnB8sRd", "eyJhbGciOi.eyJzdWIiOiIx.c2lnbmF0dXJl"] {
        let text = shown(&container(&[&format!("BUILD={value}")], &[], &[]));
        assert!(!text.contains(value), "{text}");
    }
}

#[test]
fn what_is_not_secret_stays() {
    let kept =
        ["PATH=/usr/local/sbin:/usr/bin:/sbin", "PORT=3000", "LOG_LEVEL=debug", "DB_PASSWORD_FILE=/run/secrets/db"];
    let text = shown(&container(&kept, &[], &["--workers", "2"]));
    assert!(!text.contains(HIDDEN), "{text}");
}

#[test]
fn arguments_are_hidden_after_their_option() {
    for arguments in
        [vec!["--password", CANARY], vec!["--api-key=canary-4f9Qx"], vec!["redis://:canary-4f9Qx@cache:6379"]]
    {
        let text = shown(&container(&[], &[], &arguments));
        assert!(!text.contains(CANARY), "{text}");
    }
}

#[test]
fn logs_are_searched_for_what_environment_and_labels_hold() {
    let secrets = Secrets::of(&container(&["TOKEN=canary-4f9Qx"], &[("deploy.secret", "label-77Zk")], &[]));
    assert_eq!(secrets.hide("connected with canary-4f9Qx and label-77Zk"), "connected with [hidden] and [hidden]");
}

#[test]
fn each_part_of_a_list_of_secrets_is_hidden() {
    let secrets = Secrets::of(&container(&["API_TOKEN=abcd1234,efgh5678", "KEY_FILE=/x/y"], &[], &[]));
    assert_eq!(secrets.hide("efgh5678 is refused on 3000, see /x/y"), "[hidden] is refused on 3000, see /x/y");
}

#[test]
fn logs_are_searched_for_what_looks_like_a_secret_in_its_place() {
    let hide = |text: &str| Secrets::default().hide(text);
    for line in [
        "can't connect to postgres://app:@@db:5432/app",
        "amqp://guest:@@queue refused",
        r#"{"password":"@","user":"app"}"#,
        "password = '@'",
        "curl -H 'Authorization: Bearer @'",
        "mysql --password @ --host db",
        "token: @",
    ] {
        let line = line.replacen('@', CANARY, 1);
        assert!(!hide(&line).contains(CANARY), "{}", hide(&line));
    }
    assert_eq!(
        hide("GET /api/users/1 200 in 3 ms, trace 4bf92f3577b34da6"),
        "GET /api/users/1 200 in 3 ms, trace 4bf92f3577b34da6"
    );
}
