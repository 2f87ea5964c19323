//! Makes Grafana's dashboards from short sources: `docker/grafana/boards/*.yml`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::files::{list, parse, stem};
use crate::objectives::Objectives;

/// What `{@}`, `{@service}` and `{@env}` in an expression stand for: what the variables at the top select.
const SELECTED: [(&str, &str); 3] = [
    ("@service", r#"environment=~"$environment",service=~"$service""#),
    ("@env", r#"environment=~"$environment""#),
    ("@", r#"environment=~"$environment",service=~"$service",instance=~"$instance""#),
];
const COLUMNS: u64 = 24;
const HEIGHT: u64 = 8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    pub title: String,
    pub panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Panel {
    pub title: String,
    #[serde(default)]
    about: String,
    /// One of Grafana's units.
    pub unit: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    wide: Option<u64>,
    /// Show traces of single requests, which link to Jaeger.
    #[serde(default)]
    exemplars: bool,
    /// Legends and expressions.
    pub queries: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Timeseries,
    Stat,
    Gauge,
    Table,
    Heatmap,
}

/// All boards by name.
pub fn boards() -> Vec<(String, Board)> {
    list("docker/grafana/boards", ".yml").iter().map(|file| (stem(file).to_owned(), parse(file))).collect()
}

/// An expression as Grafana gets it.
pub fn expression(source: &str, objectives: &Objectives) -> String {
    let allowed = |objective: f64| ((1e6 * (1.0 - objective)).round() / 1e6).to_string();
    let source = source.replace("{errors}", &allowed(objectives.availability));
    let source = source.replace("{slow}", &allowed(objectives.latency));
    SELECTED.iter().fold(source, |text, (short, long)| text.replace(short, long))
}

/// The dashboard's JSON, one panel a line.
pub fn dashboard(name: &str, board: &Board, objectives: &Objectives) -> String {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let mut place = Place::default();
    let panels: Vec<_> = board
        .panels
        .iter()
        .zip(1_u64..)
        .map(|(panel, id)| panel.json(id, &place.next(panel.width()), &source, objectives).to_string())
        .collect();
    let head = json!({
        "annotations": {"list": annotations(&source)},
        "editable": true,
        "graphTooltip": 1,
        "links": [{"asDropdown": true, "includeVars": true, "keepTime": true, "tags": ["plinth"], "title": "Plinth", "type": "dashboards"}],
        "refresh": "30s",
        "schemaVersion": 39,
        "tags": ["plinth"],
        "templating": {"list": variables(&source)},
        "time": {"from": "now-1h", "to": "now"},
        "title": format!("Plinth: {}", board.title),
        "uid": format!("plinth-{name}"),
    });
    let mut lines: Vec<_> =
        head.as_object().unwrap().iter().map(|(key, value)| format!("  {}: {value}", json!(key))).collect();
    lines.push(format!("  \"panels\": [\n    {}\n  ]", panels.join(",\n    ")));
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

impl Panel {
    fn width(&self) -> u64 {
        self.wide.unwrap_or(12)
    }

    fn json(&self, id: u64, place: &Value, source: &Value, objectives: &Objectives) -> Value {
        let instant = matches!(self.kind, Kind::Table | Kind::Stat | Kind::Gauge);
        let targets = self.queries.iter().zip('A'..).map(|((legend, query), name)| {
            json!({
                "datasource": source, "refId": name.to_string(), "expr": expression(query, objectives),
                "legendFormat": legend, "exemplar": self.exemplars, "instant": instant, "range": !instant,
                "format": match self.kind { Kind::Table => "table", Kind::Heatmap => "heatmap", _ => "time_series" },
            })
        });
        json!({
            "id": id, "title": self.title, "description": self.about, "gridPos": place, "datasource": source,
            "type": format!("{:?}", self.kind).to_lowercase(),
            "fieldConfig": {"defaults": {"unit": self.unit, "custom": {}}, "overrides": []},
            "options": if self.kind == Kind::Heatmap { json!({"calculate": false, "yAxis": {"unit": self.unit}}) } else { json!({}) },
            "targets": targets.collect::<Vec<_>>(),
        })
    }
}

/// Where the next panel goes: left to right, then down.
#[derive(Default)]
struct Place {
    x: u64,
    y: u64,
}

impl Place {
    fn next(&mut self, width: u64) -> Value {
        if self.x + width > COLUMNS {
            (self.x, self.y) = (0, self.y + HEIGHT);
        }
        let place = json!({"x": self.x, "y": self.y, "w": width, "h": HEIGHT});
        self.x += width;
        place
    }
}

fn variables(source: &Value) -> Value {
    let mut list =
        vec![json!({"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"})];
    for (name, of) in [
        ("environment", "up"),
        ("service", r#"up{environment=~"$environment"}"#),
        ("instance", r#"up{environment=~"$environment",service=~"$service"}"#),
    ] {
        let query = format!("label_values({of}, {name})");
        list.push(json!({
            "name": name, "label": name, "type": "query", "datasource": source, "definition": query,
            "query": {"qryType": 1, "query": query, "refId": name}, "refresh": 2, "sort": 1,
            "multi": true, "includeAll": true, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
        }));
    }
    list.into()
}

fn annotations(source: &Value) -> Value {
    let marks = [
        ("Deploys", "max by (environment) (ops_deploy_in_progress) == 1", "a deploy is under way", "blue"),
        (
            "Starts",
            r#"changes(process_start_time_seconds{job="applications"}[1m]) > 0"#,
            "{{instance}} started",
            "orange",
        ),
    ];
    let list = marks.map(|(name, expr, text, color)| {
        json!({
            "name": name, "datasource": source, "enable": true, "expr": expr, "iconColor": color, "step": "30s",
            "titleFormat": text,
        })
    });
    list.to_vec().into()
}
