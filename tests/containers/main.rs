//! What is deployed: the image, compose and what stands beside the service, in real containers.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step is a failed test, helpers included"
)]
#![expect(clippy::print_stdout, reason = "figures for who runs the long tests")]
#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` says what a module offers the others")]

mod support;

mod compose;
mod image;
mod k6;
mod manifests;
mod matrix;
mod monitoring;
mod rolling;
mod rollouts;
mod swarm;
mod upgrade;
