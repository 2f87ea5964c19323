#![doc = include_str!("../README.md")]

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod health;
pub mod lifecycle;
pub mod server;
pub mod store;
pub mod telemetry;

/// The version of this build: the image's, else the package's.
pub const VERSION: &str = match option_env!("VERSION") {
    Some(version) if !version.is_empty() => version,
    _ => env!("CARGO_PKG_VERSION"),
};

/// The commit of this build, when the build was told.
pub const REVISION: &str = match option_env!("GIT_COMMIT") {
    Some(revision) => revision,
    None => "unknown",
};
