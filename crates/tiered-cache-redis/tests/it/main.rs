//! The cache's promises on a real Redis, and on one that misbehaves.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod cluster;
mod failover;
mod foreign;
mod full;
mod lost;
mod outage;
mod promises;
mod site;
#[expect(dead_code, reason = "the cache's own tests use more of it")]
#[path = "../../../tiered-cache/tests/source/mod.rs"]
mod source;
mod unfit;
