//! Rules on recorded facts: each threshold from both sides.

use crate::container::configuration::{Configuration, Mount};
use crate::container::facts::{Facts, Place, State};
use crate::container::load::Load;
use crate::container::sample::Memory;
use crate::container::service::Service;
use crate::findings::{Severity, Thresholds, judge};

/// A container in which nothing is to be found.
fn well() -> Facts {
    Facts {
        name: "web".to_owned(),
        image: "registry.example:5000/web:1.2".to_owned(),
        state: State { status: "running".to_owned(), uptime: Some(60.0), ..State::default() },
        configuration: Configuration {
            memory_limit: Some(1000),
            cpu_quota: Some(2.0),
            pids_limit: Some(100),
            user: "1001:1001".to_owned(),
            health_check: true,
            read_only: true,
            no_new_privileges: true,
            log_rotation: true,
            ..Configuration::default()
        },
        load: Some(load()),
        ..Facts::default()
    }
}

fn load() -> Load {
    Load {
        seconds: 2.0,
        cpus: 0.1,
        host_cpus: 4,
        throttled_percent: 0.0,
        memory: Memory::default(),
        received_rate: 0.0,
        sent_rate: 0.0,
        network_errors: 0,
        network_drops: 0,
        read_rate: 0.0,
        write_rate: 0.0,
        pids: 3,
    }
}

fn found(facts: &Facts) -> Vec<(String, Severity)> {
    judge(facts, &Thresholds::default()).into_iter().map(|finding| (finding.id, finding.severity)).collect()
}

fn loaded(change: impl Fn(&mut Load)) -> Vec<(String, Severity)> {
    let mut facts = well();
    change(facts.load.as_mut().unwrap());
    found(&facts)
}

fn only(id: &str, severity: Severity) -> Vec<(String, Severity)> {
    vec![(id.to_owned(), severity)]
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(found(&well()), vec![]);
}

#[test]
fn how_a_job_was_set_up_matters_no_more_once_it_has_done_its_work() {
    let careless = |status: &str, exit_code| {
        let state = State { status: status.to_owned(), exit_code, ..State::default() };
        let facts = Facts { state, configuration: Configuration::default(), load: None, ..well() };
        found(&facts).iter().any(|(id, _)| id == "no-memory-limit")
    };
    assert!(careless("running", 0));
    assert!(careless("exited", 1));
    assert!(!careless("exited", 0));
}

#[test]
fn memory_is_a_warning_above_85_percent_and_critical_above_90() {
    let filled = |bytes| loaded(|load| load.memory.unreclaimable = bytes);
    assert_eq!(filled(850), vec![]);
    assert_eq!(filled(851), only("memory-high", Severity::Medium));
    assert_eq!(filled(901), only("memory-high", Severity::High));
}

#[test]
fn file_cache_alone_is_no_memory_finding() {
    assert_eq!(loaded(|load| (load.memory.usage, load.memory.working_set) = (1000, 990)), vec![]);
}

#[test]
fn cpu_counts_against_the_quota_or_one_cpu() {
    assert_eq!(loaded(|load| load.cpus = 1.59), vec![]);
    assert_eq!(loaded(|load| load.cpus = 1.61), only("cpu-high", Severity::Medium));
    let mut unbounded = well();
    unbounded.configuration.cpu_quota = None;
    unbounded.load.as_mut().unwrap().cpus = 0.81;
    assert_eq!(found(&unbounded)[0], ("cpu-high".to_owned(), Severity::Medium));
}

#[test]
fn throttling_is_reported_where_the_average_hides_it() {
    assert_eq!(loaded(|load| load.throttled_percent = 25.0), vec![]);
    assert_eq!(loaded(|load| load.throttled_percent = 26.0), only("cpu-throttled", Severity::Medium));
    let busy = loaded(|load| (load.throttled_percent, load.cpus) = (90.0, 2.0));
    assert_eq!(busy, only("cpu-high", Severity::Medium));
}

#[test]
fn traffic_counts_as_a_rate_above_100_megabytes_a_second() {
    assert_eq!(loaded(|load| (load.read_rate, load.write_rate) = (50e6, 50e6)), vec![]);
    assert_eq!(loaded(|load| load.write_rate = 101e6), only("io-high", Severity::Medium));
    assert_eq!(loaded(|load| load.sent_rate = 101e6), only("network-high", Severity::Medium));
    assert_eq!(loaded(|load| load.network_drops = 1), only("network-errors", Severity::Medium));
    assert_eq!(loaded(|load| load.pids = 91), only("pids-high", Severity::High));
}

#[test]
fn a_loop_of_restarts_is_over_when_it_stayed_up_for_ten_minutes() {
    let restarted = |uptime| {
        let mut facts = well();
        (facts.state.restarts, facts.state.uptime) = (4, Some(uptime));
        found(&facts)
    };
    assert_eq!(restarted(599.0), only("restart-loop", Severity::High));
    assert_eq!(restarted(601.0), vec![]);
}

#[test]
fn a_stopped_container_is_not_sick_and_a_crashed_one_is() {
    let ended = |exit_code| {
        let mut facts = well();
        facts.state = State { status: "exited".to_owned(), exit_code, ..State::default() };
        facts.load = None;
        found(&facts)
    };
    assert_eq!([0, 137, 143].map(ended), [vec![], vec![], vec![]]);
    let mut checked = well();
    let health = Some("unhealthy".to_owned());
    checked.state = State { status: "exited".to_owned(), exit_code: 143, health, ..State::default() };
    assert_eq!(found(&checked), vec![], "the engine calls each that was stopped unhealthy");
    checked.state.status = "running".to_owned();
    assert_eq!(found(&checked), only("unhealthy", Severity::High));
    assert_eq!([1, 139].map(ended), [only("exited", Severity::High), only("exited", Severity::High)]);
}

#[test]
fn the_services_own_view_counts() {
    let says = |health: &str| {
        let mut facts = well();
        facts.service = Some(Service::read(health, ("", "")));
        found(&facts)
    };
    let health = |status: &str| {
        format!(r#"{{"status":"{status}","services":{{"database":"healthy","redis":"unhealthy: timeout"}}}}"#)
    };
    assert_eq!(says(&health("healthy")), vec![]);
    assert_eq!(says(&health("degraded")), only("service-degraded", Severity::Medium));
    assert_eq!(says(&health("unhealthy")), only("service-unhealthy", Severity::High));
    assert_eq!(says("<html>"), only("service-unhealthy", Severity::High));
}

/// A page of the service's metrics with so many answers by status, and some to probes.
fn metrics(ok: u64, missing: u64, failed: u64) -> String {
    let line = |route: &str, status: u16, count: u64| {
        let labels = format!("http_request_method=\"GET\",http_route=\"{route}\"");
        format!("http_requests_total{{{labels},http_response_status_code=\"{status}\"}} {count}\n")
    };
    let probes = line("/health/ready", 503, 1000 * failed) + &line("/metrics", 200, 1000 * ok);
    let users = [(200, ok), (404, missing), (500, failed)].map(|(status, count)| line("/api/users", status, count));
    format!("# TYPE http_requests_total counter\n{probes}{}", users.concat())
}

#[test]
fn only_the_services_own_errors_count_and_only_those_of_enough_answers() {
    let health = r#"{"status":"healthy","services":{}}"#;
    let errors = |first: &str, last: &str| {
        let mut facts = well();
        facts.service = Some(Service::read(health, (first, last)));
        found(&facts)
    };
    let before = metrics(1000, 0, 900);
    assert_eq!(errors(&before, &metrics(1095, 0, 905)), vec![], "5 of 100");
    assert_eq!(errors(&before, &metrics(1094, 0, 906)), only("service-errors", Severity::Medium), "6 of 100");
    assert_eq!(errors(&before, &metrics(1020, 80, 900)), vec![], "80 of 100 were the clients' errors");
    assert_eq!(errors(&before, &metrics(1000, 0, 919)), vec![], "too few to tell");
    assert_eq!(errors(&before, ""), vec![], "no second page");
}

#[test]
fn each_threshold_is_an_option() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        thresholds: Thresholds,
    }
    let parsed = |options: &str| <Line as clap::Parser>::parse_from(options.split(' ')).thresholds;
    assert_eq!(parsed("ops"), Thresholds::default());
    let mut facts = well();
    facts.load.as_mut().unwrap().pids = 50;
    facts.service =
        Some(Service { status: "healthy".to_owned(), answers: 100, server_errors: 3, ..Service::default() });
    let found =
        |options: &str| judge(&facts, &parsed(options)).into_iter().map(|finding| finding.id).collect::<Vec<_>>();
    assert_eq!(found("ops"), Vec::<String>::new());
    assert_eq!(found("ops --pids 49 --service-errors 2.9"), ["pids-high", "service-errors"]);
}

#[test]
fn a_slot_that_is_down_matters_only_with_a_weight() {
    let slot = |weight, down| {
        let mut facts = well();
        facts.slot = Some(Place { name: "s1".to_owned(), weight, down });
        found(&facts)
    };
    assert_eq!(slot(100, true), only("slot-down", Severity::High));
    assert_eq!([slot(0, true), slot(100, false)], [vec![], vec![]]);
}

#[test]
fn the_worst_comes_first_whatever_the_order_of_rules() {
    let mut facts = well();
    facts.configuration.log_rotation = false;
    facts.configuration.user = "root".to_owned();
    facts.load.as_mut().unwrap().cpus = 2.0;
    facts.configuration.mounts =
        vec![Mount { source: "/var/run/docker.sock".to_owned(), destination: "/engine".to_owned(), writable: false }];
    let ids: Vec<_> = found(&facts).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["engine-socket", "cpu-high", "root", "no-log-rotation"]);
}

#[test]
fn a_floating_tag_is_told_from_a_registrys_port() {
    let image = |name: &str| {
        let mut facts = well();
        facts.image = name.to_owned();
        found(&facts)
    };
    let latest = only("latest-tag", Severity::Low);
    assert_eq!(["web", "web:latest", "localhost:5000/web"].map(image), [latest.clone(), latest.clone(), latest]);
    assert_eq!(["web:1", "web@sha256:00"].map(image), [vec![], vec![]]);
}

#[test]
fn every_finding_has_a_section_in_the_documentation() {
    let page = include_str!("../../../../docs/diagnosing.md");
    let sources = [
        include_str!("../../src/findings/state.rs"),
        include_str!("../../src/findings/load.rs"),
        include_str!("../../src/findings/configuration.rs"),
        include_str!("../../src/startup/causes.rs"),
        include_str!("../../src/watch/memory.rs"),
        include_str!("../../src/watch/monitor.rs"),
    ];
    let severity = r#"(?:Severity::)?(?:High|Medium|Low|severity|text|said|r")"#;
    let pattern = regex::Regex::new(&format!(r#"\(\s*"([a-z-]+)",\s*{severity}"#)).unwrap();
    let ids = sources.iter().flat_map(|source| pattern.captures_iter(source)).map(|found| found[1].to_owned());
    let ids: std::collections::BTreeSet<_> = ids.collect();
    assert!(ids.len() > 40, "the pattern no longer finds them: {ids:?}");
    let missing: Vec<_> = ids.iter().filter(|id| !page.contains(&format!("\n#### {id}\n"))).collect();
    assert_eq!(missing, Vec::<&String>::new());
}
