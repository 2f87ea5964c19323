//! A shared tier in memory that behaves as the Lua scripts do, with gates at every step and links that can be cut.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tiered_cache::{
    Acquired, Batch, Bus, Fill, Filled, Found, Gap, Mark, Notice, Phase, Place, Remote, RemoteError, Token,
};
use tokio::sync::watch;
use tokio::time::Instant;

/// A test that waits this long, in its own time, has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const LEASE: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Data {
    values: HashMap<u128, HashMap<u32, (u64, Bytes, Instant)>>,
    leases: HashMap<u128, (Token, Instant)>,
    blocks: HashMap<u128, HashMap<Token, Instant>>,
    marks: HashMap<u128, (u64, u64)>,
    log: Vec<Notice>,
    /// How many entries of the log were trimmed.
    trimmed: usize,
    /// Counts flushes: the data set's id.
    data_set: u64,
    clock: u64,
    fills: HashMap<&'static str, u64>,
}

/// What all replicas share.
#[derive(Clone)]
pub struct World {
    data: Arc<Mutex<Data>>,
    begun: Instant,
    news: watch::Sender<usize>,
}

impl World {
    pub fn new() -> Self {
        Self { data: Arc::default(), begun: Instant::now(), news: watch::Sender::new(0) }
    }

    /// One replica's way to it.
    pub fn link(&self) -> Link {
        let state = watch::Sender::new(LinkState::default());
        Link { world: self.clone(), state: Arc::new(state) }
    }

    pub fn flush(&self) {
        let mut data = self.data.lock().unwrap();
        let data_set = data.data_set + 1;
        *data = Data { data_set, clock: data.clock, ..Data::default() };
    }

    /// Drops a value and nothing else, as `maxmemory` does.
    pub fn evict(&self, hash: u128) {
        self.data.lock().unwrap().values.remove(&hash);
    }

    pub fn trim(&self) {
        let mut data = self.data.lock().unwrap();
        data.trimmed = data.log.len();
    }

    /// Loses the last invalidations, as a failover with asynchronous replication does.
    pub fn lose_last(&self, n: usize) {
        let mut data = self.data.lock().unwrap();
        let keep = data.log.len() - n;
        data.log.truncate(keep);
    }

    pub fn fills(&self, result: &str) -> u64 {
        self.data.lock().unwrap().fills.get(result).copied().unwrap_or(0)
    }

    pub fn has_value(&self, hash: u128) -> bool {
        self.data.lock().unwrap().values.get(&hash).is_some_and(|fields| !fields.is_empty())
    }

    pub fn has_lease(&self, hash: u128) -> bool {
        let now = Instant::now();
        self.data.lock().unwrap().leases.get(&hash).is_some_and(|(_, until)| now < *until)
    }

    pub fn is_blocked(&self, hash: u128) -> bool {
        self.data.lock().unwrap().is_blocked(hash)
    }

    /// Overwrites stored bytes.
    pub fn corrupt(&self, hash: u128, change: impl Fn(&Bytes) -> Bytes) {
        let mut data = self.data.lock().unwrap();
        for (_, bytes, _) in data.values.get_mut(&hash).into_iter().flat_map(HashMap::values_mut) {
            *bytes = change(bytes);
        }
    }

    /// Puts one key's stored bytes under another.
    pub fn transplant(&self, from: u128, to: u128) {
        let mut data = self.data.lock().unwrap();
        let fields = data.values.get(&from).cloned().unwrap();
        data.values.insert(to, fields);
    }

    pub fn notices(&self) -> usize {
        self.data.lock().unwrap().log.len()
    }

    fn millis(&self) -> u64 {
        1_000 + u64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }
}

impl Data {
    fn is_blocked(&self, hash: u128) -> bool {
        let now = Instant::now();
        self.blocks.get(&hash).is_some_and(|blocks| blocks.values().any(|until| now < *until))
    }

    fn found(&self, place: Place, now: u64) -> Option<Found> {
        let (stamp, bytes, dies_at) = self.values.get(&place.hash)?.get(&place.schema)?;
        if Instant::now() >= *dies_at {
            return None;
        }
        let age = Duration::from_millis(now.saturating_sub(*stamp));
        Some(Found { bytes: bytes.clone(), stamp: *stamp, age })
    }

    fn invalidate(&mut self, notice: &Notice, phase: Phase) {
        let now = Instant::now();
        for hash in &*notice.hashes {
            self.values.remove(hash);
            self.leases.remove(hash);
            self.clock += 1;
            let clock = self.clock;
            let mark = self.marks.entry(*hash).or_default();
            mark.0 = clock;
            match phase {
                Phase::Block { write, life } => {
                    self.blocks.entry(*hash).or_default().insert(write, now + life);
                }
                Phase::Done { write, version } => {
                    mark.1 = mark.1.max(version);
                    self.blocks.entry(*hash).or_default().remove(&write);
                }
            }
        }
        self.log.push(notice.clone());
    }
}

#[derive(Default, Clone)]
struct LinkState {
    down: Option<Down>,
    bus_down: bool,
    shut: HashSet<&'static str>,
    waiting: HashMap<&'static str, usize>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Down {
    /// Fails at once.
    Refused,
    /// Never answers; the deadline passes.
    Silent,
    /// Is carried out, but the answer is lost.
    AnswerLost,
}

/// One replica's connection: can be cut, and has a gate before (`get`) and after (`get/after`) each operation.
#[derive(Clone)]
pub struct Link {
    world: World,
    state: Arc<watch::Sender<LinkState>>,
}

impl Link {
    pub fn bus(&self) -> Box<dyn Bus> {
        Box::new(FakeBus { link: self.clone(), position: None })
    }

    pub fn set(&self, down: Option<Down>) {
        self.state.send_modify(|state| state.down = down);
    }

    pub fn cut_bus(&self, cut: bool) {
        self.state.send_modify(|state| state.bus_down = cut);
    }

    pub fn shut(&self, gate: &'static str) {
        self.state.send_modify(|state| {
            state.shut.insert(gate);
        });
    }

    pub fn open(&self, gate: &'static str) {
        self.state.send_modify(|state| {
            state.shut.remove(gate);
        });
    }

    /// Returns when somebody stands at the gate.
    pub async fn arrived(&self, gate: &'static str) {
        let waiting = |state: &LinkState| state.waiting.get(gate).is_some_and(|n| *n > 0);
        let mut state = self.state.subscribe();
        tokio::time::timeout(PATIENCE, state.wait_for(waiting)).await.unwrap().unwrap();
    }

    async fn pass(&self, gate: &'static str) {
        let count = |by: isize| {
            self.state.send_modify(|state| {
                let waiting = state.waiting.entry(gate).or_default();
                *waiting = waiting.saturating_add_signed(by);
            });
        };
        if self.state.borrow().shut.contains(gate) {
            count(1);
            self.state.subscribe().wait_for(|state| !state.shut.contains(gate)).await.unwrap();
            count(-1);
        }
    }

    async fn carry<T>(
        &self,
        gates: [&'static str; 2],
        work: impl FnOnce(&mut Data, u64) -> T,
    ) -> Result<T, RemoteError> {
        self.pass(gates[0]).await;
        let down = self.state.borrow().down;
        match down {
            Some(Down::Refused) => return Err(RemoteError::Unavailable),
            Some(Down::Silent) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Err(RemoteError::Timeout);
            }
            Some(Down::AnswerLost) | None => {}
        }
        let now = self.world.millis();
        let done = work(&mut self.world.data.lock().unwrap(), now);
        self.world.news.send_modify(|n| *n += 1);
        if down == Some(Down::AnswerLost) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Err(RemoteError::Timeout);
        }
        self.pass(gates[1]).await;
        Ok(done)
    }
}

#[async_trait]
impl Remote for Link {
    async fn get(&self, place: Place) -> Result<Option<Found>, RemoteError> {
        self.carry(["get", "get/after"], |data, now| data.found(place, now)).await
    }

    async fn acquire(&self, place: Place, token: Token, known: u64) -> Result<Acquired, RemoteError> {
        self.carry(["acquire", "acquire/after"], |data, now| {
            if let Some(found) = data.found(place, now).filter(|found| found.stamp != known) {
                return Acquired::Found(found);
            }
            if data.is_blocked(place.hash) {
                return Acquired::Blocked;
            }
            let at = Instant::now();
            if data.leases.get(&place.hash).is_some_and(|(_, until)| at < *until) {
                return Acquired::Held;
            }
            data.leases.insert(place.hash, (token, at + LEASE));
            let (generation, floor) = data.marks.get(&place.hash).copied().unwrap_or_default();
            Acquired::Granted(Mark { generation, floor, now })
        })
        .await
    }

    async fn renew(&self, place: Place, token: Token) -> Result<bool, RemoteError> {
        self.carry(["renew", "renew/after"], |data, _| {
            let at = Instant::now();
            let held = data.leases.get_mut(&place.hash).filter(|(by, until)| *by == token && at < *until);
            held.map(|lease| lease.1 = at + LEASE).is_some()
        })
        .await
    }

    async fn fill(&self, place: Place, token: Token, fill: Fill) -> Result<Filled, RemoteError> {
        self.carry(["fill", "fill/after"], |data, now| {
            let at = Instant::now();
            let filled = if !data.leases.get(&place.hash).is_some_and(|(by, until)| *by == token && at < *until) {
                Filled::Lost
            } else if data.is_blocked(place.hash) {
                data.leases.remove(&place.hash);
                Filled::Lost
            } else {
                data.leases.remove(&place.hash);
                data.clock += 1;
                let clock = data.clock;
                let mark = data.marks.entry(place.hash).or_insert((clock, 0));
                if fill.version > 0 && fill.version < mark.1 {
                    Filled::Older
                } else {
                    mark.1 = mark.1.max(fill.version);
                    let generation = mark.0;
                    let fields = data.values.entry(place.hash).or_default();
                    // Time stands still between awaits here; one stamp must still differ from the next.
                    let stamp = fields.get(&place.schema).map_or(now, |(last, ..)| now.max(last + 1));
                    fields.insert(place.schema, (stamp, fill.bytes, at + fill.life));
                    Filled::Stored { generation, stamp }
                }
            };
            let name = match filled {
                Filled::Stored { .. } => "stored",
                Filled::Lost => "lost",
                Filled::Older => "older",
            };
            *data.fills.entry(name).or_default() += 1;
            filled
        })
        .await
    }

    async fn release(&self, place: Place, token: Token) -> Result<(), RemoteError> {
        self.carry(["release", "release/after"], |data, _| {
            if data.leases.get(&place.hash).is_some_and(|(by, _)| *by == token) {
                data.leases.remove(&place.hash);
            }
        })
        .await
    }

    async fn invalidate(&self, notice: &Notice, phase: Phase) -> Result<(), RemoteError> {
        let gates = match phase {
            Phase::Block { .. } => ["block", "block/after"],
            Phase::Done { .. } => ["done", "done/after"],
        };
        self.carry(gates, |data, _| data.invalidate(notice, phase)).await
    }

    async fn ping(&self) -> Result<(), RemoteError> {
        self.carry(["ping", "ping/after"], |_, _| ()).await
    }
}

struct FakeBus {
    link: Link,
    position: Option<(u64, usize)>,
}

#[async_trait]
impl Bus for FakeBus {
    async fn next(&mut self) -> Result<Batch, RemoteError> {
        let mut news = self.link.world.news.subscribe();
        let sent_at = Instant::now();
        let unheard = self.position.is_some_and(|(_, at)| at < self.link.world.notices());
        if self.position.is_some() && !unheard {
            drop(tokio::time::timeout(Duration::from_millis(100), news.changed()).await);
        }
        self.link.pass("bus").await;
        let state = self.link.state.borrow().clone();
        if state.bus_down || matches!(state.down, Some(Down::Silent | Down::Refused)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Err(RemoteError::Timeout);
        }
        let data = self.link.world.data.lock().unwrap();
        let gap = match self.position {
            None => Some(Gap::Start),
            Some((data_set, _)) if data_set != data.data_set => Some(Gap::Reset),
            Some((_, at)) if at > data.log.len() => Some(Gap::Failover),
            Some((_, at)) if at < data.trimmed => Some(Gap::Trimmed),
            Some(_) => None,
        };
        let from = self.position.map_or(0, |(_, at)| at);
        let notices = if gap.is_none() { data.log[from..].to_vec() } else { Vec::new() };
        self.position = Some((data.data_set, data.log.len()));
        // A gap is noticed by this read, so nothing older than it is promised.
        Ok(Batch { sent_at, notices, gap, caught_up: true })
    }
}
