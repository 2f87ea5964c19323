//! A running service with servers of its own, spoken to over HTTP alone.

mod app;
mod backends;
mod counting;
pub mod exposition;
mod load;
mod metrics;
mod openapi;
mod otlp;
mod postgres;
mod raw;
mod refused;
mod sql;
mod wire;

pub use app::{Answer, Builder, LIMIT, TOKEN, TestApp, client, database, program, signal};
pub use backends::{redis, replicas, sql};
pub use counting::CountingProxy;
pub use load::{Load, USERS};
pub use openapi::{documents, openapi, operations};
pub use otlp::{Collector, Recorded};
pub use postgres::OwnPostgres;
pub use raw::Connection;
pub use refused::{get, refused, write};
pub use sql::Sql;
pub use wire::Wire;
