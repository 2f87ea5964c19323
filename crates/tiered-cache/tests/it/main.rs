//! The cache's tests. Scenarios are numbered as in DESIGN.md.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod blind;
mod bus;
mod courier;
mod failover;
mod follow;
mod keys;
mod l3;
mod late;
mod life;
mod loads;
#[cfg(feature = "all-tests")]
mod memcached;
mod model;
mod races;
mod redis;
mod support;
mod tier;
