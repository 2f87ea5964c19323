//! A running service with servers of its own, spoken to over HTTP alone.

mod app;

pub use app::{Answer, TOKEN, TestApp};
