//! Tests of parts that need no server; one file per file of `src`.

mod config;
mod config_reader;
mod health_memory;
mod server_client;
mod server_limits;
mod server_routes;
mod store_connect;
mod telemetry_context;
mod telemetry_error_rate;
mod telemetry_log;
