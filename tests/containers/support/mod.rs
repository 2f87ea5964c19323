//! Docker by its command line, with a deadline for every command and nothing left behind.

mod docker;
mod image;
mod manifests;
mod project;
mod settings;
mod swarm;
mod traffic;

pub use docker::{Container, docker, output, succeeded, unique};
pub use image::{COMMIT, CREATED, VERSION, build, image};
pub use manifests::{Overlay, checkout, duration, overlay, stack, text, yaml};
pub use project::Project;
pub use settings::{Settings, program};
pub use swarm::{Stack, TOKEN};
pub use traffic::{mixed_load, mixed_load_on, wait_for_more};

use std::time::Duration;

/// A client for plain HTTP.
pub fn client() -> reqwest::Client {
    // Fails only when another test was faster.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// Generous: it bounds what hangs, and measures nothing.
pub const LIMIT: Duration = Duration::from_secs(120);
