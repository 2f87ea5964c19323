//! The commands that examine, on real containers made sick on purpose.

mod sick;
mod support;
mod unreachable;
