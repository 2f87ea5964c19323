//! Reads `show servers state`, which has addresses, and `show stat`, which has health and counters.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::deploy::parts::{Admin, Counters, Slot};

/// Bits of HAProxy's `srv_admin_state`. 0x04 isn't one of them: it only says that the configuration has `disabled`.
const MAINTENANCE: u32 = 0x01 | 0x02;
const DRAINING: u32 = 0x08 | 0x10;
/// Its name in DNS has no address for it.
const UNRESOLVED: u32 = 0x20;

/// A line by the names of its columns.
type Row<'a> = HashMap<&'a str, &'a str>;

/// None when the answers don't have what they should.
pub fn slots(state: &str, stat: &str) -> Option<Vec<Slot>> {
    // The first line is the format's version.
    let (_, state) = state.trim_start().split_once('\n')?;
    let stats = rows(stat, |line| line.split(',').collect());
    let slots = rows(state, |line| line.split_whitespace().collect()).into_iter().map(|row| {
        let name = *row.get("srv_name")?;
        slot(&row, stats.iter().find(|stat| stat.get("svname") == Some(&name))?)
    });
    slots.collect::<Option<Vec<_>>>().filter(|slots| !slots.is_empty())
}

fn rows<'a>(text: &'a str, split: fn(&'a str) -> Vec<&'a str>) -> Vec<Row<'a>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names = lines.next().map(|line| split(line.trim_start_matches(['#', ' ']))).unwrap_or_default();
    lines.map(|line| names.iter().copied().zip(split(line)).collect()).collect()
}

fn slot(state: &Row<'_>, stat: &Row<'_>) -> Option<Slot> {
    let number = |name| stat.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    let bits: u32 = state.get("srv_admin_state")?.parse().ok()?;
    let unresolved = bits & UNRESOLVED != 0;
    let address: IpAddr =
        if unresolved { Ipv4Addr::UNSPECIFIED.into() } else { state.get("srv_addr")?.parse().ok()? };
    let admin = match bits {
        bits if bits & MAINTENANCE != 0 => Admin::Maint,
        bits if bits & DRAINING != 0 => Admin::Drain,
        _ => Admin::Ready,
    };
    // A slot counts as up from the moment it is opened, before anything was checked. Its health begins at `rise` then,
    // and only a check that passes takes it to the top.
    let checked =
        number("check_health") > 0 && number("check_health") + 1 >= number("check_rise") + number("check_fall");
    let status = stat.get("status")?;
    // A star: a check is under way.
    let passed = stat.get("check_status").is_some_and(|check| check.trim_start_matches(['*', ' ']).ends_with("OK"));
    let answers = ["hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other"].map(number);
    let broken = number("econ") + number("eresp");
    Some(Slot {
        name: (*state.get("srv_name")?).to_owned(),
        address: SocketAddr::new(address, state.get("srv_port")?.parse().ok()?),
        host: state.get("srv_fqdn").filter(|name| **name != "-").map(|name| (*name).to_owned()),
        admin,
        up: !unresolved && admin != Admin::Maint && !status.starts_with("DOWN") && checked && passed,
        down: status.starts_with("DOWN") || (unresolved && admin != Admin::Maint),
        weight: state.get("srv_uweight")?.parse().ok()?,
        sessions: number("scur") + number("qcur"),
        counters: Counters {
            requests: answers.iter().sum::<u64>() + broken,
            errors: number("hrsp_5xx") + broken,
            mean: Duration::from_millis(number("rtime")),
        },
    })
}
