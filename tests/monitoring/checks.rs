//! What the programs' own checkers say, and what they don't look at.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::alerts::groups;
use crate::files::{check, list, path, read};
use crate::objectives::Objectives;

const PROMETHEUS: &str = "docker/prometheus/prometheus.yml";
const ALERTMANAGER: &str = "docker/alertmanager/alertmanager.yml";

#[test]
fn prometheus_accepts_its_configuration_and_rules() {
    let said = check("promtool", &["check", "config", "--lint=all", "--lint-fatal", PROMETHEUS]);
    for file in list("docker/prometheus/rules", ".yml") {
        assert!(said.contains(&file), "{PROMETHEUS} doesn't load {file}: {said}");
    }
}

#[test]
fn prometheus_accepts_the_other_ways_to_find_targets() {
    for file in list("docker/prometheus/alternatives", ".yml") {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, format!("scrape_config_files: ['{}']\n", path(&file).display())).unwrap();
        check("promtool", &["check", "config", config.to_str().unwrap()]);
    }
}

#[test]
fn every_alert_fires_and_stays_silent_as_its_histories_say() {
    let files = list("docker/prometheus/tests", ".yml");
    let arguments: Vec<_> = ["test", "rules"].into_iter().chain(files.iter().map(String::as_str)).collect();
    check("promtool", &arguments);
}

#[test]
fn every_alert_in_a_rule_file_has_both_histories() {
    for rules in list("docker/prometheus/rules", ".yml") {
        let tests = read(&rules.replace("/rules/", "/tests/").replace("recording", "slo"));
        for group in crate::files::parse::<Value>(&rules)["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                let Some(alert) = rule["alert"].as_str() else { continue };
                let window = rule["labels"]["window"].as_str().map_or_else(String::new, |window| format!(" {window}"));
                for verb in ["fires", "stays silent"] {
                    let name = format!("  - name: {alert}{window} {verb}\n");
                    assert_eq!(tests.matches(&name).count(), 1, "{name} in the tests of {rules}");
                }
            }
        }
    }
}

#[test]
fn every_alert_says_its_value_and_leads_to_a_runbook_and_a_dashboard() {
    for group in groups(&Objectives::read()) {
        let runbook = read(&format!("docs/runbooks/{}.md", group.name));
        for alert in &group.alerts {
            let name = alert.title();
            assert!(alert.summary.contains("{{ $value"), "the summary of {name} has no value");
            assert!(path(&format!("docker/grafana/boards/{}.yml", alert.dashboard)).is_file(), "{name}: no dashboard");
            assert!(["page", "ticket", "none"].contains(&alert.severity.as_str()), "{name}: {}", alert.severity);
            let heading = format!("\n## {}\n", alert.alert);
            let section = runbook.split(&heading).nth(1).unwrap_or_else(|| panic!("{name} has no runbook"));
            let section = section.split("\n## ").next().unwrap();
            for part in ["**Means**", "**Look**", "**Do**"] {
                assert!(section.contains(part), "the runbook of {name} has no {part}");
            }
        }
    }
}

#[test]
fn every_runbook_belongs_to_an_alert() {
    let alerts: BTreeSet<_> =
        groups(&Objectives::read()).into_iter().flat_map(|group| group.alerts).map(|alert| alert.alert).collect();
    for file in list("docs/runbooks", ".md") {
        for heading in read(&file).lines().filter_map(|line| line.strip_prefix("## ")) {
            assert!(alerts.contains(heading), "{file} tells of {heading}, which is no alert");
        }
    }
}

#[test]
fn alertmanager_accepts_its_configuration_and_sends_each_severity_its_way() {
    check("amtool", &["check-config", ALERTMANAGER]);
    for (receiver, labels) in [
        ("page", ["severity=page", "alertname=ServiceDown"]),
        ("ticket", ["severity=ticket", "alertname=TargetDown"]),
        ("watchdog", ["severity=none", "alertname=Watchdog"]),
        ("ticket", ["severity=unknown", "alertname=Other"]),
    ] {
        let verify = format!("--verify.receivers={receiver}");
        let config = format!("--config.file={ALERTMANAGER}");
        check("amtool", &["config", "routes", "test", &config, &verify, labels[0], labels[1]]);
    }
}

#[test]
fn alertmanager_silences_alerts_that_exist() {
    let alerts: BTreeSet<_> =
        groups(&Objectives::read()).into_iter().flat_map(|group| group.alerts).map(|alert| alert.alert).collect();
    let rules = crate::files::parse::<Value>(ALERTMANAGER)["inhibit_rules"].clone();
    for rule in rules.as_array().unwrap() {
        for side in ["source_matchers", "target_matchers"] {
            for matcher in rule[side].as_array().unwrap() {
                let Some(pattern) = matcher.as_str().unwrap().strip_prefix("alertname ") else { continue };
                let pattern = pattern.trim_start_matches(['=', '~', ' ']).trim_matches('"');
                for name in alternatives(pattern) {
                    let found = alerts.iter().any(|alert| match name.strip_suffix(".+") {
                        Some(begin) => alert.starts_with(begin),
                        None => *alert == name,
                    });
                    assert!(found, "{name} in {ALERTMANAGER} is no alert");
                }
            }
        }
    }
}

/// The names that `A|B(C|D)` stands for.
fn alternatives(pattern: &str) -> Vec<String> {
    let Some((begin, rest)) = pattern.split_once('(') else { return pattern.split('|').map(str::to_owned).collect() };
    rest.trim_end_matches(')').split('|').map(|end| format!("{begin}{end}")).collect()
}
