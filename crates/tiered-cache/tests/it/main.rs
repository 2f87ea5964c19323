//! The cache's tests. Scenarios are numbered as in DESIGN.md.

mod life;
mod loads;
mod races;
mod support;
