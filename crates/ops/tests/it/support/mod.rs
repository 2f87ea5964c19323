//! The system of `compose.yaml`, images of other versions, load, and `ops` run as a program.

mod docker;
mod images;
mod load;
mod ops;
mod stack;

pub use docker::docker;
pub use images::{Image, image};
pub use load::assert_none_failed;
pub use ops::Ended;
pub use stack::Stack;

use std::time::Duration;

/// Generous: it bounds what hangs, and measures nothing.
pub const LIMIT: Duration = Duration::from_secs(300);
