//! How one kind of thing is cached, and how fresh a reader wants it.

use std::time::Duration;

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Read {
    /// At most the promised bound behind the last committed write.
    #[default]
    Bounded,
    /// At least this version: read your writes through any replica.
    Version(u64),
}

/// What is done with cached values while neither the log nor a fit Redis says whether they are still right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenBlind {
    /// They aren't used.
    #[default]
    Refuse,
    /// They are answered, marked as [`Hit::unverified`](crate::Hit::unverified).
    Serve,
}

/// How one kind of thing is cached.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Names the kind in metrics and events.
    pub cache: &'static str,
    /// The shape of the bodies; a new number when it changes, so that two versions of a service share one Redis.
    pub schema: u32,
    /// Longest life in this process.
    pub l1_ttl: Duration,
    /// Life in Redis, and so of the value.
    pub l2_ttl: Duration,
    /// Longest life in memcached.
    pub l3_ttl: Duration,
    /// How long past its life a value may stand in for a source that fails or is slow.
    pub fail_safe: Duration,
    /// While the source fails, one load is tried per this time.
    pub fail_safe_throttle: Duration,
    /// Life of "not found".
    pub negative_ttl: Duration,
    /// How long to wait for the source when there is a stale value to give instead.
    pub soft_timeout: Duration,
    /// How long to wait for the source when there is none.
    pub hard_timeout: Duration,
    /// How long a load may run, also after everybody stopped waiting for it.
    pub load_timeout: Duration,
    /// Eagerness of the early refresh (XFetch); 0 turns it off, 1 is the textbook value.
    pub beta: f32,
    /// Share of the lifetime that is taken off at random, so that entries don't expire together.
    pub jitter: f32,
    /// Loads pass the load gate, since they use what it protects.
    pub gated: bool,
    /// Larger bodies are answered but stored nowhere.
    pub max_bytes: usize,
}

impl Policy {
    /// Defaults: 300 s in process, 3600 s in Redis, one hour of fail-safe, 10 s of "not found".
    pub fn new(cache: &'static str) -> Self {
        Self {
            cache,
            schema: 1,
            l1_ttl: Duration::from_secs(300),
            l2_ttl: Duration::from_secs(3600),
            l3_ttl: Duration::from_secs(60),
            fail_safe: Duration::from_secs(3600),
            fail_safe_throttle: Duration::from_secs(5),
            negative_ttl: Duration::from_secs(10),
            soft_timeout: Duration::from_millis(200),
            hard_timeout: Duration::from_secs(5),
            load_timeout: Duration::from_secs(30),
            beta: 1.0,
            jitter: 0.1,
            gated: true,
            max_bytes: 1024 * 1024,
        }
    }
}
