//! A running service with servers of its own, spoken to over HTTP alone.

mod app;
mod load;
mod metrics;
mod postgres;
mod sql;
mod wire;

pub use app::{Builder, LIMIT, TOKEN, TestApp, client, database, program};
pub use load::{Load, USERS};
pub use postgres::OwnPostgres;
pub use sql::Sql;
pub use wire::Wire;
