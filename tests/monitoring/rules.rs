//! Makes Prometheus' rule files, and promtool's tests of them, from the sources.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::alerts::{Alert, Group, Series};
use crate::objectives::Objectives;
use crate::slo::Record;

const HINT: &str = "`UPDATE=1 cargo test --features all-tests --test monitoring generated` writes it anew";

/// `rules/recording.yml`: what the objectives need, and then what the file `recording.yml` says.
pub fn recording(objectives: &Objectives) -> String {
    let mut file = format!("# Made from docker/prometheus/{{objectives,recording}}.yml; {HINT}.\ngroups:\n");
    let rest: BTreeMap<String, String> = crate::files::parse("docker/prometheus/recording.yml");
    let rest = rest.into_iter().map(|(name, expr)| Record { name, expr });
    for (group, records) in [("slo", crate::slo::records(objectives)), ("service", rest.collect())] {
        writeln!(file, "  - name: {group}\n    rules:").unwrap();
        for record in records {
            writeln!(file, "      - record: {}", record.name).unwrap();
            writeln!(file, "        expr: |-\n{}", indented(&record.expr, 10)).unwrap();
        }
    }
    file
}

/// `rules/GROUP.yml`.
pub fn rules(group: &Group, objectives: &Objectives) -> String {
    let mut file = format!("# Made from {}; {HINT}.\ngroups:\n", group.source);
    writeln!(file, "  - name: {}-alerts\n    rules:", group.name).unwrap();
    for alert in &group.alerts {
        writeln!(file, "      - alert: {}", alert.alert).unwrap();
        writeln!(file, "        expr: |-\n{}", indented(&alert.expr, 10)).unwrap();
        if let Some(wait) = &alert.wait {
            writeln!(file, "        for: {wait}").unwrap();
        }
        writeln!(file, "        labels: {}", mapping(&labels(alert))).unwrap();
        writeln!(file, "        annotations:").unwrap();
        for (name, text) in annotations(alert, group, objectives, &alert.summary) {
            writeln!(file, "          {name}: {}", quoted(&text)).unwrap();
        }
    }
    file
}

/// `tests/GROUP.yml`.
pub fn tests(group: &Group, objectives: &Objectives) -> String {
    let mut file = format!("# Made from {}; {HINT}.\n", group.source);
    writeln!(file, "rule_files: [../rules/recording.yml, ../rules/{}.yml]\ntests:", group.name).unwrap();
    for alert in &group.alerts {
        begin(&mut file, alert, "fires", &alert.fires);
        let mut labels = labels(alert);
        labels.extend(alert.labels.clone());
        writeln!(file, "        exp_alerts:\n          - exp_labels: {}", mapping(&labels)).unwrap();
        writeln!(file, "            exp_annotations:").unwrap();
        for (name, text) in annotations(alert, group, objectives, &alert.says) {
            writeln!(file, "              {name}: {}", quoted(&text)).unwrap();
        }
        begin(&mut file, alert, "stays silent", &alert.silent);
        writeln!(file, "        exp_alerts: []").unwrap();
    }
    file
}

fn begin(file: &mut String, alert: &Alert, verb: &str, series: &Series) {
    writeln!(file, "  - name: {} {verb}\n    interval: 1m\n    input_series:", alert.title()).unwrap();
    for (name, values) in series {
        writeln!(file, "      - series: {}\n        values: {}", quoted(name), quoted(values)).unwrap();
    }
    writeln!(file, "    alert_rule_test:\n      - eval_time: {}\n        alertname: {}", alert.at(), alert.alert)
        .unwrap();
}

fn labels(alert: &Alert) -> BTreeMap<String, String> {
    let window = alert.window.iter().map(|window| ("window".to_owned(), window.clone()));
    window.chain([("severity".to_owned(), alert.severity.clone())]).collect()
}

fn annotations(alert: &Alert, group: &Group, objectives: &Objectives, summary: &str) -> [(&'static str, String); 3] {
    let anchor = alert.alert.to_lowercase();
    [
        ("summary", summary.to_owned()),
        ("runbook_url", format!("{}/{}.md#{anchor}", objectives.runbooks, group.name)),
        ("dashboard_url", format!("{}/plinth-{}", objectives.dashboards, alert.dashboard)),
    ]
}

fn mapping(pairs: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}: {}", quoted(value))).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn indented(text: &str, by: usize) -> String {
    let lines: Vec<_> = text.trim_end().lines().map(|line| format!("{:by$}{line}", "")).collect();
    lines.join("\n")
}
