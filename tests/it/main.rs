//! The service as a whole: the real program, over HTTP, against real Postgres and Redis.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step is a failed test, helpers included"
)]
#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` says what a module offers the others")]

mod support;

mod concurrency;
mod faults_postgres;
mod faults_redis;
mod lifecycle;
mod output;
mod robustness;
mod store;
mod users;
