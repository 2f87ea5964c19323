//! The service as a whole: the real program, over HTTP, against real Postgres and Redis.

mod support;

mod concurrency;
mod faults_postgres;
mod faults_redis;
mod lifecycle;
mod robustness;
mod store;
mod users;
