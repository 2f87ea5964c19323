//! A container as the engine sees it: facts, samples, and the secrets that must not leave.
//!
//! `collect` and `stream` ask the engine; everything else only reads what it answered.

pub mod collect;
pub mod configuration;
pub mod facts;
pub mod load;
pub mod sample;
pub mod secrets;
pub mod service;
pub mod stream;
