//! `ops --target swarm` on a real swarm of one node: a binary of its own, because leaving a swarm empties Docker's DNS
//! for every running container, and those of the other tests need it.
#![cfg(feature = "all-tests")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed step is a failed test, helpers included"
)]
#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` says what a module offers the others")]

mod support;

mod deploys;
mod refusals;
