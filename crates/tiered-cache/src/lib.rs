#![doc = include_str!("../README.md")]

mod breaker;
mod builder;
mod cache;
mod codec;
mod entry;
mod error;
mod fill;
mod flight;
mod gate;
mod inner;
mod key;
mod l1;
mod l3;
mod listen;
mod load;
mod metrics;
mod outbox;
mod policy;
mod probe;
mod read;
mod redis;
mod remote;
mod stripes;
mod write;

pub use builder::Builder;
pub use cache::{CacheHealth, TieredCache};
pub use entry::{Body, Entry, Hit, Kind, LoadCx, LoadOutcome, Loaded, StaleReason, Tier};
pub use error::{CacheError, LoadError, WriteError};
pub use key::{CacheKey, KeyBuilder};
pub use l3::CopyStore;
pub use metrics::CacheMetrics;
pub use outbox::{OutboxRow, OutboxStore};
pub use policy::{Policy, Read, Write};
pub use redis::{Redis, RedisConfig, RedisConfigError, RemoteError};
pub use remote::{Acquired, Batch, Bus, Fill, Filled, Found, Gap, Mark, Notice, Phase, Place, Remote, Token};
pub use write::WriteCx;
