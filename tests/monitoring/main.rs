//! Monitoring: rules, their unit tests and dashboards are made from short sources and checked by the real programs.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step is a failed test, helpers included"
)]
#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` says what a module offers the others")]

mod alerts;
mod boards;
mod files;
mod generated;
mod objectives;
mod rules;
mod slo;
