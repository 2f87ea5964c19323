//! The judge of `cargo dev consistency`, on histories made by hand.

#[path = "../consistency/judge/mod.rs"]
mod judge;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use judge::{GONE, Judge, Kind, Read, SQL, Seen, Tally, Verdict};

const KEY: i64 = 7;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A judge of one user, created as version 10 by write 0 at 100 ms.
fn judge() -> Judge {
    let mut judge = Judge::default();
    let created = judge.begin(Kind::Create, None, 0, ms(90));
    judge.done(created, KEY, 10, ms(100));
    judge
}

/// An answered PUT that took 10 ms.
fn put(judge: &mut Judge, replica: usize, version: u64, end: u64) -> u64 {
    let number = judge.begin(Kind::Replace, Some(KEY), replica, ms(end - 10));
    judge.done(number, KEY, version, ms(end));
    number
}

fn delete(judge: &mut Judge, end: u64) {
    let number = judge.begin(Kind::Delete, Some(KEY), 0, ms(end - 10));
    judge.done(number, KEY, GONE, ms(end));
}

/// A GET on replica 1 that took 1 ms.
fn get(judge: &mut Judge, start: u64, seen: Seen) {
    get_asking(judge, start, 0, seen);
}

fn get_asking(judge: &mut Judge, start: u64, asked: u64, seen: Seen) {
    judge.read(Read { key: KEY, replica: 1, start: ms(start), end: ms(start + 1), asked, seen, tier: "l1" });
}

fn value(version: u64, write: u64) -> Seen {
    Seen::Value { version, write }
}

fn verdicts(judge: &mut Judge) -> (Tally, Vec<Verdict>) {
    let (tally, cases) = judge.take();
    (tally, cases.iter().map(|case| case.verdict).collect())
}

#[test]
fn an_old_value_within_a_second_is_stale_and_no_violation() {
    let mut judge = judge();
    put(&mut judge, 0, 11, 1000);
    get(&mut judge, 1900, value(10, 0));
    let (tally, found) = verdicts(&mut judge);
    assert_eq!((tally.reads, tally.stale.len(), found.len()), (1, 1, 0));
    assert_eq!(tally.stale.quantile(100), Some(ms(900)));
}

#[test]
fn an_old_value_after_more_than_a_second_is_a_violation() {
    let mut judge = judge();
    put(&mut judge, 0, 11, 1000);
    get(&mut judge, 2001, value(10, 0));
    let (tally, found) = verdicts(&mut judge);
    assert_eq!((tally.violations, found), (1, vec![Verdict::Stale]));
}

#[test]
fn a_read_counts_from_when_it_was_sent_not_from_when_it_was_answered() {
    let mut judge = judge();
    put(&mut judge, 0, 11, 1000);
    let (start, end) = (ms(1500), ms(9000));
    judge.read(Read { key: KEY, replica: 1, start, end, asked: 0, seen: value(10, 0), tier: "l1" });
    assert_eq!(judge.take().0.violations, 0);
}

#[test]
fn a_value_that_another_write_has_replaced_is_as_stale_as_the_first_of_the_writes_it_missed() {
    let mut judge = judge();
    put(&mut judge, 0, 11, 1000);
    put(&mut judge, 2, 12, 1900);
    get(&mut judge, 2100, value(10, 0));
    get(&mut judge, 2100, value(11, 1));
    let (tally, found) = verdicts(&mut judge);
    assert_eq!((tally.stale.len(), tally.stale.quantile(100)), (2, Some(ms(1100))));
    assert_eq!(found, [Verdict::Stale]);
}

#[test]
fn answers_may_come_in_another_order_than_versions() {
    let mut judge = judge();
    let first = judge.begin(Kind::Replace, Some(KEY), 0, ms(990));
    put(&mut judge, 2, 12, 1000);
    judge.done(first, KEY, 11, ms(1200));
    get(&mut judge, 3000, value(12, 2));
    assert_eq!(judge.take().0.violations, 0);
    get(&mut judge, 3000, value(11, 1));
    assert_eq!(judge.take().0.violations, 1);
}

#[test]
fn writes_by_plain_sql_count_like_others_and_by_themselves() {
    let mut judge = judge();
    put(&mut judge, SQL, 11, 1000);
    get(&mut judge, 1900, value(10, 0));
    let (tally, found) = verdicts(&mut judge);
    assert_eq!((tally.stale.len(), tally.stale_of_sql.quantile(50), found.len()), (0, Some(ms(900)), 0));
    get(&mut judge, 2001, value(10, 0));
    assert_eq!(verdicts(&mut judge).1, [Verdict::Stale]);
}

#[test]
fn what_is_written_past_the_service_as_the_database_dies_has_to_be_seen_when_it_is_back() {
    for (replica, replaced, allowed) in [(SQL, 1000, 0), (SQL, 400, 1), (0, 1000, 1)] {
        let mut judge = judge();
        put(&mut judge, replica, 11, replaced);
        judge.database_dies(ms(1500));
        get(&mut judge, 4000, value(10, 0));
        assert_eq!(judge.take().0.violations, allowed);
        judge.database_is_back(ms(5000));
        get(&mut judge, 7100, value(10, 0));
        assert_eq!(judge.take().0.violations, 1);
    }
}

#[test]
fn what_the_database_lost_may_be_answered_for_a_while_and_never_again() {
    let mut judge = judge();
    let lost = put(&mut judge, 0, 11, 3000);
    judge.went_back(&HashMap::from([(KEY, 10)]), &HashSet::from([0]), ms(2000), ms(5000));
    get(&mut judge, 6900, value(11, lost));
    get(&mut judge, 6900, value(10, 0));
    assert_eq!(judge.take().0.violations, 0);
    get(&mut judge, 7100, value(10, 0));
    assert_eq!(judge.take().0.violations, 0);
    get(&mut judge, 7100, value(11, lost));
    assert_eq!(verdicts(&mut judge).1, [Verdict::Lost]);
    // Versions are given out again.
    let again = put(&mut judge, 0, 11, 8000);
    get(&mut judge, 9100, value(11, again));
    assert_eq!(judge.take().0.violations, 0);
    get(&mut judge, 9100, value(10, 0));
    assert_eq!(verdicts(&mut judge).1, [Verdict::Stale]);
}

#[test]
fn a_delete_that_the_database_lost_is_undone_and_one_from_before_is_not() {
    let mut judge = judge();
    delete(&mut judge, 3000);
    judge.went_back(&HashMap::from([(KEY, 10)]), &HashSet::from([0]), ms(2000), ms(5000));
    get(&mut judge, 7100, value(10, 0));
    assert_eq!(judge.take().0.violations, 0);
    get(&mut judge, 7100, Seen::Absent);
    assert_eq!(verdicts(&mut judge).1, [Verdict::Stale]);

    delete(&mut judge, 8000);
    judge.went_back(&HashMap::new(), &HashSet::new(), ms(9000), ms(10_000));
    get(&mut judge, 12_100, value(10, 0));
    assert_eq!(verdicts(&mut judge).1, [Verdict::Stale]);
}

#[test]
fn what_was_lost_without_an_answer_is_never_answered_again_not_even_under_a_version_given_twice() {
    let mut judge = judge();
    let lost = judge.begin(Kind::Replace, Some(KEY), 0, ms(3000));
    judge.unknown(lost, ms(3100));
    judge.went_back(&HashMap::from([(KEY, 10)]), &HashSet::from([0]), ms(2000), ms(5000));
    get(&mut judge, 6900, value(11, lost));
    assert_eq!(judge.take().0.violations, 0);
    put(&mut judge, 0, 11, 7000);
    get(&mut judge, 7100, value(11, lost));
    assert_eq!(verdicts(&mut judge).1, [Verdict::Lost]);
}

#[test]
fn what_is_answered_only_after_the_database_went_back_may_be_lost_or_not() {
    let mut judge = judge();
    let late = judge.begin(Kind::Replace, Some(KEY), 0, ms(3000));
    let delete = judge.begin(Kind::Delete, Some(KEY), 2, ms(3000));
    judge.went_back(&HashMap::from([(KEY, 10)]), &HashSet::from([0]), ms(2000), ms(5000));
    judge.done(late, KEY, 11, ms(5200));
    get(&mut judge, 7500, value(10, 0));
    get(&mut judge, 7600, value(11, late));
    get(&mut judge, 7700, Seen::Absent);
    judge.done(delete, KEY, GONE, ms(7800));
    assert_eq!(judge.take().0.violations, 0);
}

#[test]
fn a_write_without_an_answer_may_be_seen_or_not() {
    let mut judge = judge();
    let lost = judge.begin(Kind::Replace, Some(KEY), 0, ms(500));
    judge.unknown(lost, ms(600));
    get(&mut judge, 3000, value(10, 0));
    get(&mut judge, 3100, value(11, lost));
    get(&mut judge, 3200, value(10, 0));
    let (tally, found) = verdicts(&mut judge);
    assert_eq!((tally.unknown, tally.violations, found.len()), (1, 0, 0));
}

#[test]
fn a_write_without_an_answer_has_to_be_seen_once_the_database_showed_it() {
    let mut judge = judge();
    let lost = judge.begin(Kind::Replace, Some(KEY), 0, ms(500));
    judge.unknown(lost, ms(600));
    judge.observed(KEY, 11, ms(700), ms(710));
    get(&mut judge, 1600, value(10, 0));
    assert_eq!(judge.take().0.violations, 0);
    get(&mut judge, 1800, value(10, 0));
    assert_eq!(verdicts(&mut judge).1, [Verdict::StaleUnanswered]);
}

#[test]
fn values_come_from_writes_of_the_same_user_that_were_sent_and_not_refused() {
    let mut judge = judge();
    let refused = judge.begin(Kind::Replace, Some(KEY), 0, ms(500));
    judge.refused(refused, ms(510));
    let other = judge.begin(Kind::Replace, Some(KEY + 1), 0, ms(500));
    let later = judge.begin(Kind::Replace, Some(KEY), 0, ms(5000));
    for write in [refused, other, later, 99] {
        get(&mut judge, 600, value(11, write));
        assert_eq!(verdicts(&mut judge).1, [Verdict::NobodyWrote], "write {write}");
    }
}

#[test]
fn a_write_has_one_version() {
    let mut judge = judge();
    let number = put(&mut judge, 0, 11, 1000);
    get(&mut judge, 1100, value(12, number));
    assert_eq!(verdicts(&mut judge).1, [Verdict::TwoVersions]);
    let next = judge.begin(Kind::Replace, Some(KEY), 0, ms(1200));
    get(&mut judge, 1205, value(13, next));
    judge.done(next, KEY, 14, ms(1210));
    assert_eq!(verdicts(&mut judge).1, [Verdict::TwoVersions]);
}

#[test]
fn not_found_long_after_a_create_is_a_violation() {
    let mut judge = judge();
    get(&mut judge, 1050, Seen::Absent);
    assert_eq!(judge.take().0.violations, 0);
    get(&mut judge, 1150, Seen::Absent);
    assert_eq!(verdicts(&mut judge).1, [Verdict::Stale]);
}

#[test]
fn a_value_long_after_its_delete_is_a_violation_and_not_found_is_right() {
    let mut judge = judge();
    delete(&mut judge, 1000);
    get(&mut judge, 1900, value(10, 0));
    get(&mut judge, 2100, Seen::Absent);
    assert_eq!(judge.take().0.violations, 0);
    get(&mut judge, 2100, value(10, 0));
    assert_eq!(verdicts(&mut judge).1, [Verdict::Stale]);
}

#[test]
fn a_delete_without_an_answer_may_have_happened_and_counts_once_the_database_showed_it() {
    let mut judge = judge();
    let lost = judge.begin(Kind::Delete, Some(KEY), 0, ms(2000));
    judge.unknown(lost, ms(2100));
    get(&mut judge, 3000, Seen::Absent);
    get(&mut judge, 3000, value(10, 0));
    // A look that began before the delete tells nothing.
    judge.observed(KEY, GONE, ms(1990), ms(2010));
    get(&mut judge, 8000, value(10, 0));
    assert_eq!(judge.take().0.violations, 0);
    judge.observed(KEY, GONE, ms(2200), ms(2210));
    get(&mut judge, 8000, value(10, 0));
    assert_eq!(verdicts(&mut judge).1, [Verdict::StaleUnanswered]);
}

#[test]
fn a_read_that_asks_for_a_version_gets_it_or_a_later_one_at_once() {
    let mut judge = judge();
    put(&mut judge, 0, 11, 1000);
    assert_eq!(judge.floor(KEY), Some(11));
    get_asking(&mut judge, 1001, 11, value(11, 1));
    assert_eq!(judge.take().0.violations, 0);
    get_asking(&mut judge, 1001, 11, value(10, 0));
    assert_eq!(verdicts(&mut judge).1, [Verdict::BelowAsked]);
    get_asking(&mut judge, 1001, 11, Seen::Behind);
    assert_eq!(verdicts(&mut judge).1, [Verdict::Behind]);
}

#[test]
fn what_is_forgotten_does_not_hide_a_value_that_is_too_old() {
    let mut judge = judge();
    put(&mut judge, 0, 11, 1000);
    put(&mut judge, 0, 12, 100_000);
    judge.prune(ms(100_100));
    get(&mut judge, 100_200, value(10, 0));
    assert_eq!(judge.take().0.violations, 1);
    judge.prune(ms(300_000));
    get(&mut judge, 300_100, value(11, 1));
    assert_eq!(judge.take().0.violations, 1);
    get(&mut judge, 300_100, value(12, 2));
    assert_eq!(judge.take().0.violations, 0);
}

#[test]
fn a_violation_tells_its_history_once_with_times_after_the_write() {
    let mut judge = judge();
    get(&mut judge, 1500, value(10, 0));
    put(&mut judge, 2, 11, 2000);
    for start in (2500..4000).step_by(100) {
        get(&mut judge, start, value(10, 0));
    }
    get(&mut judge, 4000, value(11, 1));
    let (tally, cases) = judge.take();
    assert_eq!((tally.violations, cases.len()), (9, 1));
    let told = cases[0].to_string();
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    assert!(lines[0].contains("user 7, replica 2") && lines[0].contains("longest 1.900 s"), "{told}");
    assert!(lines[1].starts_with("-10.0 ms") && lines[1].ends_with("write 1 begins on replica 3"), "{told}");
    assert!(lines[2].starts_with("+0.0 ms") && lines[2].ends_with("write 1 answered: version 11"), "{told}");
    assert!(lines[3].starts_with("+500.0 ms …   +1900.0 ms") && lines[3].ends_with("15 times"), "{told}");
    assert!(lines[4].starts_with("+2000.0 ms") && lines[4].contains("version 11 of write 1"), "{told}");
}

#[test]
fn counts_of_phases_add_up() {
    let mut judge = judge();
    let (mut total, _) = judge.take();
    judge.failed_read();
    put(&mut judge, 0, 11, 1000);
    get(&mut judge, 1500, value(10, 0));
    total.add(&judge.take().0);
    assert_eq!((total.writes, total.reads, total.errors, total.stale.quantile(50)), (2, 1, 1, Some(ms(500))));
}
