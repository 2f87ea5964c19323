//! The cache's tests. Scenarios are numbered as in DESIGN.md.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod blind;
mod bus;
mod courier;
mod follow;
mod keys;
mod l3;
mod late;
mod life;
mod loads;
mod model;
mod races;
#[path = "../source/mod.rs"]
mod source;
mod support;
mod tier;
