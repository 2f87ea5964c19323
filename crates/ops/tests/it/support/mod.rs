//! The system of `compose.yaml`, images of other versions, load, and `ops` run as a program.

mod docker;
mod images;
mod ops;
mod stack;

pub use docker::docker;
pub use images::{Image, image};
pub use ops::Ended;
pub use stack::{Stack, assert_none_failed};

use std::time::Duration;

/// Generous: it bounds what hangs, and measures nothing.
pub const LIMIT: Duration = Duration::from_secs(300);
