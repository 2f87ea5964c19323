//! Deploys, diagnoses and watches the service's containers through the Docker Engine API.
//!
//! Each command has a module of its own with its arguments, `Args`, and a function `run`, which returns what the
//! process ends with. Nothing here knows the service's insides: it asks over HTTP, as anybody could.

mod balancer;
pub mod cli;
mod deploy;
pub mod engine;
pub mod gate;
mod history;
mod state;
mod status;

pub use containers::{exit, output};

#[cfg(test)]
#[path = "../tests/unit/mod.rs"]
mod unit;
