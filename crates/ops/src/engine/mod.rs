//! The Docker Engine: connecting to it, and what deploys need of it.

mod deaths;
pub mod docker;
mod recipe;
pub mod report;

pub use containers::engine::{connect, failure, http};
