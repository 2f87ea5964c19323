//! A shared tier in memory that does what the Lua scripts do, beside `link`, a replica's way to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tiered_cache::{Change, Notice};
use tokio::sync::watch;
use tokio::time::Instant;

use super::link::Link;
use super::space::{Space, Step, draw};

/// By the identity of the log.
pub type Data = HashMap<u64, Space>;

/// What all replicas share.
#[derive(Clone)]
pub struct World {
    data: Arc<Mutex<Data>>,
    counts: Arc<Mutex<HashMap<&'static str, u64>>>,
    begun: Instant,
    /// Says which server it is: connections to another one break.
    pub(super) server: watch::Sender<u64>,
    pub(super) news: watch::Sender<()>,
}

impl World {
    pub fn new() -> Self {
        // Far enough from zero for what is subtracted.
        Self::of(Data::default(), Instant::now() - Duration::from_secs(100_000))
    }

    fn of(data: Data, begun: Instant) -> Self {
        let (server, news) = (watch::Sender::new(draw()), watch::Sender::new(()));
        Self { data: Arc::new(Mutex::new(data)), counts: Arc::default(), begun, server, news }
    }

    /// One replica's way to it.
    pub fn link(&self) -> Link {
        Link::to(self)
    }

    /// Another server that has all that this one has.
    pub fn copy(&self) -> Self {
        Self::of(self.snapshot(), self.begun)
    }

    pub fn snapshot(&self) -> Data {
        self.lock().clone()
    }

    /// Goes back to what it held then, as a failover with asynchronous replication does.
    pub fn fail_over_to(&self, snapshot: &Data) {
        self.lock().clone_from(snapshot);
        self.server.send_replace(draw());
    }

    pub fn flush(&self) {
        self.lock().clear();
    }

    /// Drops a value and nothing else, as `maxmemory` does.
    pub fn evict(&self, hash: u128) {
        self.change(|space| drop(space.values.remove(&hash)));
    }

    /// Drops any one key, by number.
    pub fn evict_any(&self, number: u8) {
        self.change(|space| space.evict(number));
    }

    pub fn trim(&self) {
        self.change(|space| space.bus.clear());
    }

    /// How often an operation was asked for, or a fill ended so.
    pub fn count_of(&self, name: &str) -> u64 {
        self.counts.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    pub(super) fn count(&self, name: &'static str) {
        *self.counts.lock().unwrap().entry(name).or_default() += 1;
    }

    pub fn has_value(&self, hash: u128) -> bool {
        self.lock().values().any(|space| space.values.get(&hash).is_some_and(|all| !all.fields.is_empty()))
    }

    pub fn has_lease(&self, hash: u128) -> bool {
        let now = Instant::now();
        self.lock().values().any(|space| space.leases.get(&hash).is_some_and(|lease| now < lease.2))
    }

    /// Overwrites stored bytes; those of the stamp are in front.
    pub fn corrupt(&self, hash: u128, change: impl Fn(&Bytes) -> Bytes) {
        self.change(|space| {
            let fields = space.values.get_mut(&hash).into_iter().flat_map(|stored| stored.fields.values_mut());
            fields.for_each(|bytes| *bytes = change(bytes));
        });
    }

    /// Puts something of another type where values are.
    pub fn put_foreign(&self, hash: u128) {
        self.change(|space| space.put_foreign(hash));
    }

    /// Puts one key's stored bytes under another.
    pub fn transplant(&self, from: u128, to: u128) {
        self.change(|space| {
            let stored = space.values.get(&from).cloned();
            space.values.extend(stored.map(|stored| (to, stored)));
        });
    }

    /// Tells all replicas something, as one of them would.
    pub fn say(&self, changes: &[Change]) {
        self.change(|space| space.tell(Notice { changes: changes.into(), origin: 0, cause: String::new() }));
        self.news.send_modify(|()| ());
    }

    /// How many notices the bus was given.
    pub fn notices(&self) -> u64 {
        self.lock().values().map(|space| space.state.sequence).sum()
    }

    /// How far it is clean of what the log says.
    pub fn cleaned(&self) -> u64 {
        self.lock().values().filter_map(|space| space.state.cleaned).max().unwrap_or(0)
    }

    fn change(&self, change: impl Fn(&mut Space)) {
        self.lock().values_mut().for_each(change);
    }

    /// Works on what belongs to one log.
    pub(super) fn within<T>(&self, identity: u64, work: impl FnOnce(&mut Space, Step<'_>) -> T) -> T {
        let at = Instant::now();
        let now = u64::try_from((at - self.begun).as_millis()).unwrap();
        work(self.lock().entry(identity).or_default(), Step { at, now, world: self })
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap()
    }
}
