//! `cargo dev nightly`.

use std::ffi::OsString;
use std::process::ExitCode;

use super::test;

/// Runs the tests that are ignored elsewhere because they take minutes, one after the other, optimized.
pub(super) async fn run(yes: bool, filter: &[String]) -> anyhow::Result<ExitCode> {
    let args = ["--profile", "fast", "--lib", "--test", "it", "--test", "containers", "--"];
    let args = args.into_iter().map(OsString::from);
    let choice = ["--ignored", "--nocapture", "--test-threads=1"].into_iter().chain(filter.iter().map(String::as_str));
    let args: Vec<OsString> = args.chain(choice.map(OsString::from)).collect();
    test::run(true, yes, &args).await
}
