use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use telemetry::catalog::{Kind, Named};

use super::generated::assert_generated;
use crate::catalog::CATALOG;

const MARK: &str = "<!-- From here on made from src/catalog.rs; `UPDATE=1 cargo test generated` writes it anew. -->\n";

fn words(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What `docs/telemetry.md` has to be: the words that are there, and tables of all that is declared.
fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/telemetry.md");
    let found = std::fs::read_to_string(path).unwrap();
    let mut page = format!("{}{MARK}\n", found.split(MARK).next().unwrap());
    page.push_str("### Metrics\n\n| family | kind | labels | series at most | meaning |\n|---|---|---|---|---|\n");
    for metric in CATALOG.metrics {
        let (end, kind) = match metric.kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
        };
        let (name, labels, most, help) = (metric.name, words(metric.labels), metric.most, metric.help);
        writeln!(page, "| `{name}{end}` | {kind} | {labels} | {most} | {help} |").unwrap();
    }
    let mut table = |title: &str, fields: &str, rows: &[Named]| {
        writeln!(page, "\n### {title}\n\n| name | {fields} | meaning |\n|---|---|---|").unwrap();
        for Named { name, fields, help } in rows {
            writeln!(page, "| `{name}` | {} | {help} |", words(fields)).unwrap();
        }
    };
    table("Spans", "attributes", CATALOG.spans);
    table("Events", "fields", CATALOG.events);
    page
}

#[test]
fn the_generated_page_on_telemetry_is_up_to_date() {
    assert_generated("docs/telemetry.md", &page());
}

/// The sources that may make spans and events.
fn sources() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = ["src", "crates/tiered-cache/src", "crates/tiered-cache-redis/src", "crates/telemetry/src"]
        .map(|folder| root.join(folder))
        .to_vec();
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    texts
}

/// The quoted name that stands right behind `macro!(` and a target, if there is one.
fn name_behind(call: &str) -> Option<&str> {
    let mut rest = call.trim_start();
    for part in ["target: ", "parent: "] {
        let Some(target) = rest.strip_prefix(part) else { continue };
        rest = target.split_once(',')?.1.trim_start();
    }
    rest.strip_prefix("name: ").unwrap_or(rest).strip_prefix('"')?.split('"').next()
}

fn declared(named: &[Named]) -> BTreeSet<&str> {
    named.iter().map(|named| named.name).collect()
}

#[test]
fn every_span_in_the_code_is_declared_and_the_other_way_round() {
    let sources = sources();
    let made: BTreeSet<&str> =
        sources.iter().flat_map(|text| text.split("span!(").skip(1).filter_map(name_behind)).collect();
    assert_eq!(made, declared(CATALOG.spans));
}

#[test]
fn every_event_in_the_code_has_a_declared_name_and_the_other_way_round() {
    let sources = sources();
    let mut made = BTreeSet::new();
    for level in ["error", "warn", "info", "debug", "trace"] {
        for text in &sources {
            for call in text.split(&format!("tracing::{level}!(")).skip(1) {
                let line = call.lines().next().unwrap();
                assert!(call.trim_start().starts_with("name: "), "an event without a name: {level}!({line}");
                made.extend(name_behind(call));
            }
        }
    }
    assert_eq!(made, declared(CATALOG.events));
}
