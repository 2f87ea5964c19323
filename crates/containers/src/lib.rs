//! What can be known of containers: connects to the engine, looks at them, judges what it sees, and writes it down.
//!
//! `ops` is the command line around it. Nothing here knows of deploys or of a balancer.

pub mod container;
pub mod debug;
pub mod diagnose;
pub mod engine;
pub mod exit;
pub mod findings;
pub mod output;
pub mod startup;
pub mod watch;

#[cfg(test)]
#[path = "../tests/unit/mod.rs"]
mod unit;
