//! The service as a whole: the real program, over HTTP, against real Postgres and Redis.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step is a failed test, helpers included"
)]
#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` says what a module offers the others")]

mod support;

mod bodies;
mod cache_values;
mod configuration;
mod data;
mod documentation;
mod errors;
mod headers;
mod health;
#[cfg(feature = "all-tests")]
mod jaeger;
mod limits;
mod logs;
mod metrics;
mod migrations;
mod pages;
mod ports;
mod probe_command;
mod routes;
mod series;
mod test_endpoint;
mod traces;
mod users;
