//! The Docker Engine: connecting to it, what its errors mean, and asking what runs in a container.

pub mod connect;
mod events;
mod failure;
pub mod http;

pub use events::events;
pub use failure::failure;
