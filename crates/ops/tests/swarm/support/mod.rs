//! The stack of `docker/swarm`, with `ops` run on it as a program. One swarm per engine, so one test at a time.

#[path = "../../it/support/docker.rs"]
mod docker;
#[expect(dead_code, reason = "the other binary deploys more of them")]
#[path = "../../it/support/images.rs"]
mod images;
#[path = "../../it/support/load.rs"]
mod load;
#[expect(dead_code, reason = "as above")]
#[path = "../../it/support/ops.rs"]
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
