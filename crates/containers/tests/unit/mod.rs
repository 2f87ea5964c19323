//! The commands that examine: their rules on recorded facts.

mod findings;
mod programs;
mod samples;
mod secrets;
mod tables;
mod trends;
