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
mod changes;
mod changes_untold;
mod collector_faults;
mod concurrency;
mod configuration;
mod consistency;
mod contract;
mod data;
mod documentation;
mod errors;
mod faults_postgres;
mod faults_redis;
mod headers;
mod health;
#[cfg(feature = "all-tests")]
mod jaeger;
mod lifecycle;
mod limits;
mod log_filter;
mod logs;
mod metrics;
mod migrations;
mod named_versions;
mod output;
mod pages;
mod ports;
mod probe_command;
mod robustness;
mod routes;
mod sampling;
mod series;
mod store;
mod telemetry_cost;
mod test_endpoint;
mod traces;
mod users;
mod versions;
