//! The handlers, one file per resource.

pub mod body;
pub mod cache_values;
pub mod data;
pub mod docs;
pub mod log_filter;
pub mod respond;
pub mod test;
pub mod users;
