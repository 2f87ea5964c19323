//! The state machine on fakes, and parsers on recorded text.

mod arguments;
mod fake;
mod interleavings;
mod migrations;
mod parsers;
mod plans;
mod rollbacks;
mod schemas;
mod site;
mod socket;
mod stalled;
mod swarm;
mod wishes;
