//! A running service with servers of its own, spoken to over HTTP alone.

mod app;
mod backends;
mod counting;
mod openapi;
mod otlp;
mod raw;
mod refused;

pub use app::{Answer, LIMIT, TOKEN, TestApp, client, database, program};
pub use backends::{redis, replicas, sql};
pub use counting::CountingProxy;
pub use openapi::{documents, openapi, operations};
pub use otlp::{Collector, Recorded};
pub use raw::Connection;
pub use refused::{get, refused, write};
