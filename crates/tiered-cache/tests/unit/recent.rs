//! What is remembered of the log, and what may be used by it.

use super::*;

fn read(position: u64, changes: &[(u128, u64)]) -> LogRead {
    let change = |&(hash, version): &(u128, u64)| Change { what: Changed::Key(hash), version };
    LogRead {
        sent_at: Instant::now(),
        identity: 1,
        anew_since: None,
        position,
        changes: changes.iter().map(change).collect(),
        readers: 1,
        newest: 0,
    }
}

fn kind(slot: u8) -> Change {
    Change { what: Changed::Kind(slot), version: 0 }
}

#[test]
fn nothing_is_right_in_a_redis_of_which_nobody_says_how_far_it_is_clean() {
    let recent = Recent::default();
    recent.read(&read(5, &[]), Instant::now());

    assert!(!recent.vouches(1, 0, 9, 0));
    assert!(recent.vouches(1, 0, 9, 1));
}

#[test]
fn a_value_below_the_newest_version_is_not_right_and_one_at_it_is() {
    let recent = Recent::default();
    recent.read(&read(5, &[(1, 7)]), Instant::now());

    assert!(!recent.vouches(1, 0, 6, 5));
    assert!(recent.vouches(1, 0, 7, 5));
    assert!(recent.vouches(2, 0, 6, 5));
    assert!(recent.knows(1, 7) && !recent.knows(1, 8) && !recent.knows(2, 1));
}

#[test]
fn no_value_is_right_whose_change_had_no_version() {
    let recent = Recent::default();
    recent.read(&read(5, &[(1, 0)]), Instant::now());
    recent.read(&read(6, &[(1, 7)]), Instant::now());

    assert!(!recent.vouches(1, 0, 9, 6));
    assert!(!recent.knows(1, 7));
}

#[test]
fn a_redis_must_be_clean_of_all_that_is_forgotten_here() {
    let recent = Recent::default();
    let begun = Instant::now();
    recent.read(&read(5, &[(1, 7)]), begun);
    recent.read(&read(6, &[(2, 8)]), begun + SPAN);

    assert!(!recent.vouches(3, 0, 1, 4), "what changed up to 5 may still be there");
    assert!(recent.vouches(3, 0, 1, 5));
    assert!(recent.vouches(1, 0, 6, 5), "Redis was cleaned of it");
}

#[test]
fn a_change_heard_twice_is_remembered_from_the_second_time() {
    let recent = Recent::default();
    let begun = Instant::now();
    recent.heard(&Change { what: Changed::Key(1), version: 7 }, begun);
    recent.read(&read(5, &[(1, 7)]), begun + SPAN / 2);
    recent.read(&read(6, &[]), begun + SPAN);

    assert!(!recent.vouches(1, 0, 6, 4));
}

#[test]
fn a_kind_that_changed_is_right_only_in_a_redis_that_knows() {
    let recent = Recent::default();
    let mut changed = read(5, &[]);
    changed.changes.push(kind(3));
    recent.read(&read(4, &[]), Instant::now());
    recent.read(&changed, Instant::now());

    assert!(!recent.vouches(1, 3, 9, 4));
    assert!(recent.vouches(1, 3, 9, 5));
    assert!(recent.vouches(1, 4, 9, 4));
}

#[test]
fn what_the_bus_says_of_a_kind_holds_until_the_log_says_it() {
    let recent = Recent::default();
    recent.heard(&kind(3), Instant::now());
    assert!(!recent.vouches(1, 3, 9, 1_000));

    let mut changed = read(5, &[]);
    changed.changes.push(kind(3));
    recent.read(&changed, Instant::now());
    assert!(recent.vouches(1, 3, 9, 5));
}

#[test]
fn the_courier_goes_on_where_redis_was_left() {
    let recent = Recent::default();
    recent.read(&read(5, &[(1, 7)]), Instant::now());
    recent.read(&read(6, &[(2, 8)]), Instant::now());

    let rest = recent.unclean(5);
    // 5 was drawn before the last read's state was fixed, 6 after it.
    assert_eq!((rest.all, rest.to, rest.done), (false, 5, 6));
    assert_eq!(rest.changes, [Change { what: Changed::Key(2), version: 8 }]);
    assert_eq!(recent.unclean(6).changes, []);
}

#[test]
fn a_redis_that_was_left_too_long_ago_is_given_up_as_a_whole() {
    let recent = Recent::default();
    recent.read(&LogRead { anew_since: Some(5), ..read(6, &[]) }, Instant::now());

    assert_eq!(recent.unclean(4), Unclean { changes: Vec::new(), all: true, to: 6, done: 6 });
    assert!(recent.unclean(0).all);
    assert!(!recent.unclean(5).all);
}

#[test]
fn a_redis_that_has_too_much_old_to_be_cleaned_at_once_is_given_up_as_a_whole() {
    let recent = Recent::default();
    let many = |to: usize| (0..to as u128).map(|hash| (hash, 7)).collect::<Vec<_>>();
    recent.read(&read(5, &[]), Instant::now());
    recent.read(&read(6, &many(AT_ONCE)), Instant::now());
    assert_eq!(recent.unclean(5).changes.len(), AT_ONCE);

    recent.read(&read(7, &many(1)), Instant::now());
    assert_eq!(recent.unclean(5), Unclean { changes: Vec::new(), all: true, to: 7, done: 7 });
}

#[test]
fn a_log_that_begins_anew_makes_forget_what_was_remembered() {
    let recent = Recent::default();
    recent.read(&read(5, &[(1, 7)]), Instant::now());
    recent.read(&LogRead { anew_since: Some(2), ..read(3, &[(2, 8)]) }, Instant::now());

    assert!(!recent.knows(1, 7) && recent.knows(2, 8));
    assert!(recent.vouches(1, 0, 1, 2) && !recent.vouches(1, 0, 1, 1));
}

#[test]
fn the_memory_is_bounded() {
    let recent = Recent::default();
    let many: Vec<(u128, u64)> = (0..MOST as u128 + 10).map(|hash| (hash, 1)).collect();
    recent.read(&read(5, &many), Instant::now());

    assert!(!recent.vouches(1, 0, 9, 4) && recent.vouches(1, 0, 9, 5));
    assert_eq!(lock(&recent.0).told.len(), MOST);
    assert_eq!(lock(&recent.0).newest.len(), MOST);
}
