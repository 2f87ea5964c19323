//! The cache's tests. Scenarios are numbered as in DESIGN.md.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod bus;
mod support;
