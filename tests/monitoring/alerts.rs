//! Sources of alerts: `docker/prometheus/alerts/*.yml`, and the burn-rate alerts that objectives ask for.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::files::{list, parse, stem};
use crate::objectives::Objectives;

/// Names of series with promtool's notation of their values, one a minute.
pub type Series = BTreeMap<String, String>;

/// An alert, one history in which it fires and one in which it doesn't.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    pub alert: String,
    /// The dashboard to look at first: a file in `docker/grafana/boards`.
    pub dashboard: String,
    pub expr: String,
    #[serde(default, rename = "for")]
    pub wait: Option<String>,
    pub severity: String,
    /// Tells several windows of one alert apart.
    #[serde(default)]
    pub window: Option<String>,
    pub summary: String,
    pub fires: Series,
    /// The summary then, and the labels that the expression gives.
    pub says: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub silent: Series,
    /// When both are asked; 8 minutes after the wait if nothing is said.
    #[serde(default)]
    pub at: Option<String>,
}

impl Alert {
    pub fn at(&self) -> String {
        let wait = self.wait.as_deref().map_or(0, minutes);
        self.at.clone().unwrap_or_else(|| format!("{}m", wait + 8))
    }

    /// Its name, with the window where it has one.
    pub fn title(&self) -> String {
        let window = self.window.as_ref().map_or_else(String::new, |window| format!(" {window}"));
        format!("{}{window}", self.alert)
    }
}

pub struct Group {
    /// Also the name of its runbook.
    pub name: String,
    /// The file that it is made from.
    pub source: String,
    pub alerts: Vec<Alert>,
}

/// All alerts; those of the objectives are the first group.
pub fn groups(objectives: &Objectives) -> Vec<Group> {
    let source = crate::objectives::FILE.to_owned();
    let mut groups = vec![Group { name: "slo".to_owned(), source, alerts: crate::slo::alerts(objectives) }];
    for file in list("docker/prometheus/alerts", ".yml") {
        groups.push(Group { name: stem(&file).to_owned(), alerts: parse(&file), source: file });
    }
    groups
}

/// The minutes of `90m`, `2h` or `3d`.
pub fn minutes(text: &str) -> u32 {
    let (number, unit) = text.split_at(text.len() - 1);
    let factor = match unit {
        "m" => 1,
        "h" => 60,
        "d" => 24 * 60,
        _ => panic!("{text} isn't in m, h or d"),
    };
    number.parse::<u32>().unwrap() * factor
}
