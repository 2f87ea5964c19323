//! Private servers for development and tests: `cargo dev …`, and what tests of other crates need.
//!
//! Every value here owns its process. A guardian (see `guard`) ends the process and removes its data when the
//! owner is dropped, crashes or is killed. Nothing here knows the service's insides.
//!
//! `DEVKIT_POSTGRES` (`url`, `binary`, `download`, `container`) and `DEVKIT_REDIS` (`url`, `binary`, `install`,
//! `container`, `none`) narrow where a server comes from to that one way, to try it.

mod account;
mod cleanup;
pub mod commands;
mod container;
mod database;
mod folder;
mod given;
mod guard;
mod janitor;
pub mod load;
mod port;
mod postgres;
mod process;
mod programs;
mod proxy;
mod redis;
mod say;
mod server;
mod settings;
pub mod versions;
mod wait;

pub use crate::redis::Redis;
pub use cleanup::Cleanup;
pub use database::Database;
pub use port::free_port;
pub use postgres::{Postgres, shared_postgres};
pub use programs::find;
pub use proxy::{Fault, FaultProxy};
pub use wait::wait_until;
