//! The cache's tests. Scenarios are numbered as in DESIGN.md.

mod bus;
mod life;
mod loads;
mod races;
mod redis;
mod support;
