//! The Docker Engine: connecting to it, and what deploys need of it.

pub mod connect;
mod deaths;
pub mod docker;
mod http;
mod recipe;
pub mod redact;
pub mod report;
