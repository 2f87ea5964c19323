//! The Docker Engine: connecting to it.

pub mod connect;
pub mod report;
