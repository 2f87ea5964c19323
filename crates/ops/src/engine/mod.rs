//! The Docker Engine: connecting to it, and what deploys need of it.

mod deaths;
pub mod docker;
mod recipe;
pub mod report;
pub(crate) mod swarm;
pub mod target;

pub use containers::engine::{connect, failure, http};
