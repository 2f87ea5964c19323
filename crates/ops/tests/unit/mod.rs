//! The state machine on fakes, and parsers on recorded text.

mod fake;
mod interleavings;
mod parsers;
mod plans;
mod schemas;
mod swarm;
