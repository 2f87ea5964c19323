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
mod checks;
mod exemplars;
mod exist;
mod files;
mod generated;
mod objectives;
mod programs;
mod rules;
mod shapes;
mod slo;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it serves the tests in tests/it, too")]
mod support;
