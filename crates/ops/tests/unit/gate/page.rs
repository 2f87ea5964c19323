//! The tables of `docs/canary.md`.

use std::fmt::Write as _;
use std::path::Path;

use super::characteristics::{ALONE, AMONG_OTHERS};
use super::simulation::{World, rates};

const CANARIES: u64 = 1_000;
/// Of the kinds whose blocks have to be looked through again and again.
const STALLING: u64 = 200;
const BEGIN: &str = "<!-- Made by the simulation; `UPDATE=1 cargo test -p ops canary_page` writes it anew. -->\n";
const END: &str = "<!-- End of what the simulation made. -->\n";

/// A row: what the canary is, and the judge of a canary among others and alone beside the reference's gate.
fn row(table: &mut String, name: &str, among: &World, alone: &World) {
    let canaries = if among.stalls == (0.0, 0.0) { CANARIES } else { STALLING };
    let (among, alone) = (rates(among, canaries), rates(alone, canaries));
    let _ = write!(table, "| {name} | {:.1} |", among.reference_passes);
    for rates in [among, alone] {
        let (passed, failed, open) = (rates.passed, rates.failed, rates.inconclusive);
        let _ = write!(table, " {passed:.1} | {failed:.1} | {open:.1} | {} |", rates.requests);
    }
    table.push('\n');
}

fn head(table: &mut String, what: &str) {
    let judge = "promoted | failed | inconclusive | requests";
    let _ = writeln!(table, "| {what} | reference: promoted | among others: {judge} | alone: {judge} |");
    let _ = writeln!(table, "|{}", "---|".repeat(10));
}

fn tables() -> String {
    let mut tables = String::from(BEGIN);
    head(&mut tables, "equal to the running version: both fail");
    for errors in [0.0, 0.001, 0.002, 0.005, 0.01] {
        let equal = |world, most| World { errors: (errors, errors), steps: 3, most, ..world };
        let name = format!("{:.1} % of answers", errors * 100.0);
        row(&mut tables, &name, &equal(AMONG_OTHERS, 6_000), &equal(ALONE, 11_000));
    }
    let stalls = |world| World { slower: Some(1.0), stalls: (0.03, 0.03), steps: 3, most: 6_000, ..world };
    row(&mut tables, "none, but 3 % of moments stall one side", &stalls(AMONG_OTHERS), &stalls(ALONE));
    tables.push('\n');
    head(&mut tables, "worse");
    for errors in [(0.005, 0.001), (0.01, 0.001), (0.02, 0.001), (0.05, 0.001), (0.02, 0.005), (0.05, 0.01)] {
        let name = format!("{:.1} % fail, running version {:.1} %", errors.0 * 100.0, errors.1 * 100.0);
        row(&mut tables, &name, &World { errors, ..AMONG_OTHERS }, &World { errors, ..ALONE });
    }
    for (name, slower) in [("5 % slower", 1.05), ("40 % slower", 1.4)] {
        let slow = |world| World { errors: (0.001, 0.001), slower: Some(slower), most: 6_000, ..world };
        row(&mut tables, name, &slow(AMONG_OTHERS), &slow(ALONE));
    }
    let stalls = |world| World { slower: Some(1.0), stalls: (0.2, 0.01), most: 6_000, ..world };
    row(&mut tables, "20 % of moments stall it, running version 1 %", &stalls(AMONG_OTHERS), &stalls(ALONE));
    tables + END
}

#[test]
#[expect(clippy::disallowed_methods, reason = "asks whether to write the file; not a setting")]
fn the_canary_page_shows_what_the_simulation_finds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/canary.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();

    let wanted = [before, &tables(), after].concat();

    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == wanted, "run `UPDATE=1 cargo test -p ops canary_page`");
}
