//! The service as a whole: the real program, over HTTP, against real Postgres and Redis.

mod consistency;
mod support;

mod users;
