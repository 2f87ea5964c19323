//! `ops` against real Docker, real HAProxy and the real service.
#![cfg(feature = "all-tests")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test, helpers included")]
#![expect(clippy::print_stdout, reason = "figures for who runs the long tests")]
#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` says what a module offers the others")]

mod support;

mod balancer;
mod blue_green;
mod canary;
mod crash;
#[expect(clippy::expect_used, reason = "as above")]
mod diagnose;
mod migrations;
mod output;
mod refusals;
mod rollback;
mod wishes;
