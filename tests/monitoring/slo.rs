//! Burn-rate alerts and the recording rules below them, made from the objectives.

use std::collections::{BTreeMap, BTreeSet};

use crate::alerts::{Alert, Series, minutes};
use crate::objectives::{Objectives, Window};

/// Probes and scrapes aren't what users see.
const USERS: &str = r#"http_route!~"/health.*|/metrics""#;
const BY: &str = "sum by (service, environment)";
/// The window of the budget that is shown; data is kept for 200 h, so 30 days can't be.
const BUDGET: &str = "7d";

/// A recorded expression.
pub struct Record {
    pub name: String,
    pub expr: String,
}

/// Ratios over every window that an alert asks for.
pub fn records(objectives: &Objectives) -> Vec<Record> {
    let windows = objectives.windows.iter().flat_map(|window| [&window.long, &window.short]);
    let mut windows: Vec<&str> =
        windows.map(String::as_str).chain([BUDGET]).collect::<BTreeSet<_>>().into_iter().collect();
    windows.sort_by_key(|window| minutes(window));
    let mut records: Vec<_> = windows.iter().flat_map(|window| ratios(objectives, window)).collect();
    for (kind, objective) in [("errors", objectives.availability), ("slow", objectives.latency)] {
        let allowed = (1e6 * (1.0 - objective)).round() / 1e6;
        records.push(Record {
            name: format!("slo:{kind}_budget_remaining:ratio{BUDGET}"),
            expr: format!("1 - service:http_{kind}:ratio_rate{BUDGET} / {allowed}"),
        });
    }
    records
}

fn ratios(objectives: &Objectives, window: &str) -> [Record; 3] {
    let all = format!("{BY} (rate(http_requests_total{{{USERS}}}[{window}]))");
    let failed = format!(r#"{BY} (rate(http_requests_total{{{USERS},http_response_status_code=~"5.."}}[{window}]))"#);
    let within = format!(r#"http_request_duration_seconds_bucket{{{USERS},le="{}"}}"#, objectives.seconds);
    let count = format!("http_request_duration_seconds_count{{{USERS}}}");
    [
        // Without errors there is no series of errors; the ratio is 0, not absent.
        Record {
            name: format!("service:http_errors:ratio_rate{window}"),
            expr: format!("({failed}\n  or 0 * {all})\n/ {all}"),
        },
        Record {
            name: format!("service:http_slow:ratio_rate{window}"),
            expr: format!("1 - {BY} (rate({within}[{window}]))\n/ {BY} (rate({count}[{window}]))"),
        },
        Record {
            name: format!("service:http_requests:increase{window}"),
            expr: format!("{BY} (increase(http_requests_total{{{USERS}}}[{window}]))"),
        },
    ]
}

pub fn alerts(objectives: &Objectives) -> Vec<Alert> {
    let kinds = [Kind::Errors, Kind::Slow];
    kinds.iter().flat_map(|kind| objectives.windows.iter().map(|window| kind.alert(objectives, window))).collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Errors,
    Slow,
}

impl Kind {
    fn alert(self, objectives: &Objectives, window: &Window) -> Alert {
        let (name, record, objective, are) = match self {
            Self::Errors => ("SLOErrorBudgetBurn", "errors", objectives.availability, "are 5xx".to_owned()),
            Self::Slow => {
                let are = format!("take longer than {} s", objectives.seconds);
                ("SLOLatencyBudgetBurn", "slow", objectives.latency, are)
            }
        };
        let (limit, fewest) = (window.limit(objective), window.fewest(objective));
        let Window { long, short, factor, .. } = window;
        let says = |share: &str, service: &str| {
            format!(
                "{share} of the answers of {service} in {long} {are}: {factor} times what the objective allows, or more"
            )
        };
        let bad = (limit * 1.5).min(1.0);
        Alert {
            alert: name.to_owned(),
            dashboard: "slo".to_owned(),
            expr: format!(
                "service:http_{record}:ratio_rate{long} > {limit}\n\
                 and service:http_{record}:ratio_rate{short} > {limit}\n\
                 and service:http_requests:increase{long} > {fewest}"
            ),
            wait: Some(window.wait.clone()),
            severity: window.severity.clone(),
            window: Some(long.clone()),
            summary: says("{{ $value | humanizePercentage }}", "{{ $labels.service }}"),
            fires: self.history(objectives, "plinth", 1000.0, bad),
            says: says(&format!("{}%", significant(bad * 100.0)), "plinth"),
            labels: BTreeMap::from([("service".to_owned(), "plinth".to_owned())]),
            silent: {
                // Just within the limit; and far above it, but of few requests.
                let mut silent = self.history(objectives, "calm", 1000.0, limit * 0.9);
                let until = f64::from(minutes(&window.wait) + 8);
                silent.extend(self.history(objectives, "few", 0.9 * fewest / until, bad));
                silent
            },
            at: None,
        }
    }

    /// So many requests a minute, of which this share is bad.
    fn history(self, objectives: &Objectives, service: &str, a_minute: f64, bad: f64) -> Series {
        let labels = format!(r#"service="{service}",http_route="/a""#);
        let good = a_minute * (1.0 - bad);
        let status = |code: &str| format!(r#"http_requests_total{{{labels},http_response_status_code="{code}"}}"#);
        let counts = match self {
            Self::Errors => vec![(status("200"), good), (status("503"), a_minute * bad)],
            Self::Slow => vec![
                (status("200"), a_minute),
                (format!(r#"http_request_duration_seconds_bucket{{{labels},le="{}"}}"#, objectives.seconds), good),
                (format!("http_request_duration_seconds_count{{{labels}}}"), a_minute),
            ],
        };
        counts.into_iter().map(|(series, step)| (series, format!("0+{}x200", significant(step)))).collect()
    }
}

/// Four digits that matter, as Prometheus writes them.
fn significant(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap()
}
