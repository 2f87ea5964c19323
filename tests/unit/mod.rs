//! Tests of parts that need no server; one file per file of `src`.

mod catalog;
mod config;
mod config_reader;
mod generated;
mod health_memory;
mod server_client;
mod server_limits;
mod server_routes;
mod store_connect;
