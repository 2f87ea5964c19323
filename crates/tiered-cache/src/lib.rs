#![doc = include_str!("../README.md")]

mod builder;
mod cache;
mod codec;
mod entry;
mod error;
mod fence;
mod flight;
mod follow;
mod gate;
mod gauges;
mod health;
mod heard;
mod inner;
mod key;
mod l1;
mod l3;
mod listen;
mod load;
mod lock;
mod log;
mod metrics;
mod part;
mod policy;
mod probe;
mod read;
mod recent;
mod remote;
mod shared;
mod stripes;
mod untold;
mod write;

pub use builder::Builder;
pub use cache::TieredCache;
pub use entry::{Body, Entry, Hit, Loaded, StaleReason, Tier};
pub use error::{CacheError, LoadError, WriteError};
pub use health::CacheHealth;
pub use key::{CacheKey, KeyBuilder, slot};
pub use l3::CopyStore;
pub use log::{Change, ChangeLog, Changed, LogRead, LogReader};
pub use policy::{Policy, Read, WhenBlind};
pub use remote::{
    Acquired, Batch, Beat, Bus, Cleaning, Fill, Filled, Found, LEASE, Mark, Notice, Place, Pulse, Reached, Remote,
    RemoteError, Tell, Token, Told,
};
pub use write::Committed;
