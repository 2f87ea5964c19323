//! The Docker Engine: connecting to it, and what deploys need of it.

pub mod connect;
mod deaths;
pub mod docker;
mod failure;
pub(crate) mod http;
mod recipe;
pub mod redact;
pub mod report;

pub use failure::failure;
