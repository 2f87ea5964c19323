//! Tables in terminals of different widths.

use crate::output::table::{fitted, table};

const HEADINGS: [&str; 4] = ["CONTAINER", "STATUS", "NETWORK", "SEVERITY"];

fn rows() -> [[String; 4]; 2] {
    let row = |name: &str, severity: &str| [name, "running (unhealthy)", "12.3 MB/s", severity].map(str::to_owned);
    [row("shop_web.1.abcdefghijklmnopqrstuvwxyz", "HIGH"), row("db", "LOW")]
}

fn shown(width: usize) -> Vec<String> {
    fitted(HEADINGS, &rows(), Some(width), &["NETWORK"]).lines().map(str::to_owned).collect()
}

#[test]
fn a_wide_terminal_and_a_pipe_have_everything() {
    assert_eq!(shown(200).join("\n") + "\n", table(HEADINGS, &rows()));
    assert_eq!(fitted(HEADINGS, &rows(), None, &["NETWORK"]), table(HEADINGS, &rows()));
}

#[test]
fn names_are_cut_before_columns_are_left_out() {
    assert_eq!(shown(68)[1], "shop_web.1.abcdefghijklmn…  running (unhealthy)  12.3 MB/s  HIGH");
    let narrow = shown(67);
    assert_eq!(narrow[0].split_whitespace().collect::<Vec<_>>(), ["CONTAINER", "STATUS", "SEVERITY"]);
    assert_eq!(narrow[1], "shop_web.1.abcdefghijklmnopqrstuvwx…  running (unhealthy)  HIGH");
}

#[test]
fn no_line_is_longer_than_the_terminal_is_wide() {
    for width in 40..120 {
        for line in shown(width) {
            assert!(line.chars().count() <= width, "{width}: {line:?}");
        }
    }
}
