//! `cargo dev nightly`.

use std::ffi::OsString;
use std::process::ExitCode;

use super::test::{self, Choice};

/// Runs the tests that are ignored elsewhere because they take minutes, one after the other, optimized; of one package
/// every test, the ones that need the machine for themselves included.
pub(super) async fn run(yes: bool, package: Option<&str>, filter: &[String]) -> anyhow::Result<ExitCode> {
    let targets = ["--profile", "fast", "--lib", "--test", "it", "--test", "containers"];
    let (targets, which) = match package {
        Some(_) => (&targets[..2], "--include-ignored"),
        None => (&targets[..], "--ignored"),
    };
    let choice = ["--", which, "--nocapture", "--test-threads=1"];
    let args = targets.iter().chain(&choice).copied().chain(filter.iter().map(String::as_str));
    let args: Vec<OsString> = args.map(OsString::from).collect();
    test::run(Choice { package, all: true, sick: true }, yes, &args).await
}
