//! The files made from sources are as the sources are.

use crate::alerts::groups;
use crate::boards;
use crate::files::assert_generated;
use crate::objectives::Objectives;
use crate::rules;

#[test]
fn generated_rules_and_their_tests_are_up_to_date() {
    let objectives = Objectives::read();
    assert_generated("docker/prometheus/rules/recording.yml", &rules::recording(&objectives));
    for group in groups(&objectives) {
        assert_generated(&format!("docker/prometheus/rules/{}.yml", group.name), &rules::rules(&group, &objectives));
        assert_generated(&format!("docker/prometheus/tests/{}.yml", group.name), &rules::tests(&group, &objectives));
    }
}

#[test]
fn generated_objectives_of_load_tests_are_those_of_the_alerts() {
    let Objectives { availability, latency, seconds, .. } = Objectives::read();
    let latency = format!(r#"{{ "seconds": {seconds}, "share": {latency} }}"#);
    let json = format!("{{\n  \"availability\": {availability},\n  \"latency\": {latency}\n}}\n");
    assert_generated("k6/objectives.json", &json);
}

#[test]
fn generated_dashboards_are_up_to_date() {
    let objectives = Objectives::read();
    for (name, board) in boards::boards() {
        let json = boards::dashboard(&name, &board, &objectives);
        assert_generated(&format!("docker/grafana/dashboards/{name}.json"), &json);
    }
}
