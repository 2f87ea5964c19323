//! What other programs print.

use std::time::Duration;

use crate::balancer::stat;
use crate::deploy::meter::{Meter, Page};
use crate::deploy::migrations::pending;
use crate::deploy::parts::{Admin, Counters};

#[test]
fn names_of_pending_migrations_are_read() {
    let output = r#"schema: Behind(["V3__add_index", "V4__contract_drop_name"])"#;
    assert_eq!(pending(output), ["V3__add_index", "V4__contract_drop_name"]);
    assert!(pending("schema: Current").is_empty());
}

fn page(fast: u64, slow: u64, seconds: f64, panics: u64) -> Page {
    let all = fast + slow;
    Page::read(&format!(
        "# TYPE http_request_duration_seconds histogram\n\
         http_request_duration_seconds_bucket{{method=\"GET\",route=\"/api/test\",le=\"0.1\"}} {fast}\n\
         http_request_duration_seconds_bucket{{method=\"GET\",route=\"/api/test\",le=\"+Inf\"}} {all}\n\
         http_request_duration_seconds_sum{{method=\"GET\",route=\"/api/test\"}} {seconds}\n\
         http_request_duration_seconds_bucket{{method=\"GET\",route=\"/health/ready\",le=\"0.1\"}} 99\n\
         http_request_duration_seconds_sum{{method=\"GET\",route=\"/health/ready\"}} 99\n\
         panics_total {panics}\n"
    ))
}

#[test]
fn durations_are_counted_from_the_first_page_without_probes() {
    let mut meter = Meter::default();
    meter.page("one", page(10, 1, 3.0, 1));
    meter.page("one", page(40, 6, 9.0, 3));
    meter.page("two", page(5, 5, 1.0, 0));
    meter.page("two", page(6, 5, 1.5, 0));
    let latency = meter.arm().latency;
    assert_eq!(latency.buckets, [(0.1, 31), (f64::INFINITY, 5)]);
    assert!((latency.seconds - 6.5).abs() < 1e-9);
    assert_eq!(meter.panics(), 3, "also what came before the first page");
}

#[test]
fn slots_are_read_from_what_haproxy_prints() {
    let (state, stat) = (include_str!("recorded/servers-state.txt"), include_str!("recorded/stat.csv"));
    let slots = stat::slots(state, stat).unwrap();
    let names: Vec<_> = slots.iter().map(|slot| slot.name.as_str()).collect();
    assert_eq!(names, ["blue1", "blue2", "blue3", "blue4", "green1", "green2", "green3", "green4"]);
    let (blue, green) = (&slots[0], &slots[4]);
    assert_eq!((blue.admin, blue.up, blue.down, blue.weight), (Admin::Ready, true, false, 100));
    assert_eq!(blue.address, "10.201.7.11:3000".parse().unwrap());
    assert_eq!(blue.counters, Counters { requests: 0, errors: 0, mean: Duration::ZERO });
    assert_eq!((green.admin, green.up, green.weight), (Admin::Ready, true, 0), "opened, though `disabled` at first");
    assert_eq!((slots[7].admin, slots[7].up), (Admin::Maint, false));
}

#[test]
fn a_slot_that_was_just_opened_is_not_up_before_a_check_has_passed() {
    let stat = include_str!("recorded/stat.csv");
    let opened = stat.replace(",Layer7 check passed,,2,2,3,", ",Layer7 check passed,,2,2,2,");
    let slots = stat::slots(include_str!("recorded/servers-state.txt"), &opened).unwrap();
    assert!(!slots[0].up, "its health begins at `rise`, which is 2");
}

#[test]
fn answers_that_make_no_sense_give_no_slots() {
    assert_eq!(stat::slots("", ""), None);
    assert_eq!(stat::slots("1\n# srv_name srv_addr\nblue1 -\n", "# svname\nblue1\n"), None);
}
