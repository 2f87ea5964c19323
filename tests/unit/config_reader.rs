use std::time::Duration;

use crate::config::reader::*;
use proptest::prelude::*;

#[test]
fn sizes_are_bytes_or_binary_units() {
    assert_eq!(size("0"), Ok(0));
    assert_eq!(size("64KiB"), Ok(65_536));
    assert_eq!(size("1 GiB"), Ok(1 << 30));
    assert!(size("64MB").is_err() && size("-1").is_err() && size("99999999999GiB").is_err());
}

#[test]
fn durations_are_what_postgres_takes_as_milliseconds() {
    assert_eq!(duration("1ms"), Ok(Duration::from_millis(1)));
    assert_eq!(duration("24days"), Ok(Duration::from_hours(24 * 24)));
    assert!(duration("500us").is_err() && duration("25days").is_err());
}

#[test]
fn durations_need_a_unit() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("0s"), Ok(Duration::ZERO));
    assert!(duration("30").is_err() && duration("soon").is_err());
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in ".*") {
        let _ = (size(&text), duration(&text), list(parsed::<u16>("a port"))(&text));
    }
}
