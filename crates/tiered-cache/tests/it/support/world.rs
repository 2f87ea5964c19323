//! A shared tier in memory that does what the Lua scripts do, beside `link`, a replica's way to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tiered_cache::{
    Acquired, Beat, Change, Changed, Cleaning, Fill, Filled, Found, Mark, Notice, Place, Pulse, RemoteError, Token,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::link::Link;

const LEASE: Duration = Duration::from_secs(2);
const COURIER: u64 = 2_000;
const SILENT: u64 = 60_000;
/// A blind replica is known for so long.
const BLIND: u64 = 2_000;
const STAMP: usize = 16;

/// The id of the state and the counter of the slot.
type Generation = (Option<u64>, u64);

#[derive(Clone)]
pub(super) struct Stored {
    /// Something of another type, under the key of a value.
    foreign: bool,
    generation: Generation,
    version: u64,
    fields: HashMap<u32, Bytes>,
    dies_at: Instant,
}

/// What the key of the state holds; all of it is gone at once.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) id: Option<u64>,
    pub(super) sequence: u64,
    counters: HashMap<u8, u64>,
    courier: Option<(Token, u64)>,
    cleaned: Option<u64>,
    cleaned_at: Option<u64>,
    seen: Option<u64>,
    blind: Option<u64>,
}

/// What belongs to one log.
#[derive(Clone, Default)]
pub struct Space {
    pub(super) state: State,
    pub(super) values: HashMap<u128, Stored>,
    leases: HashMap<u128, (Token, Generation, Instant)>,
    marks: HashMap<u128, (u64, Generation, Instant)>,
    /// Entries by their ids, with their sequence numbers.
    pub(super) bus: Vec<(u64, u64, Notice)>,
    replicas: HashMap<Token, u64>,
}

/// By the identity of the log.
pub type Data = HashMap<u64, Space>;

/// Names that no server gives twice.
fn draw() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    DRAWN.fetch_add(1, Ordering::SeqCst)
}

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
        self.change(|space| match number % 6 {
            0 => space.state = State::default(),
            1 => space.values.clear(),
            2 => space.leases.clear(),
            3 => space.marks.clear(),
            4 => space.bus.clear(),
            _ => space.replicas.clear(),
        });
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
        self.change(|space| {
            let dies_at = Instant::now() + Duration::from_secs(3_600);
            let fields = HashMap::new();
            space.values.insert(hash, Stored { foreign: true, generation: (None, 0), version: 0, fields, dies_at });
        });
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

/// One operation: when it is done, and where.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    at: Instant,
    /// The tier's clock, in milliseconds.
    now: u64,
    world: &'a World,
}

/// Foreign bytes have some stamp.
fn stamp(value: &Bytes) -> u64 {
    let digits = value.get(..STAMP).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl Space {
    fn generation(&self, slot: u8) -> Generation {
        (self.state.id, self.state.counters.get(&slot).copied().unwrap_or(0))
    }

    fn stored(&self, hash: u128, at: Instant) -> Result<Option<&Stored>, RemoteError> {
        match self.values.get(&hash).filter(|stored| at < stored.dies_at) {
            Some(stored) if stored.foreign => Err(RemoteError::WrongType),
            stored => Ok(stored),
        }
    }

    pub(super) fn get(&self, place: Place, step: Step<'_>) -> Result<Option<Found>, RemoteError> {
        let Some(stored) = self.stored(place.hash, step.at)? else { return Ok(None) };
        let present = self.state.id.is_some() && stored.generation == self.generation(place.slot);
        let Some(value) = stored.fields.get(&place.schema).filter(|_| present) else { return Ok(None) };
        let age = Duration::from_millis(step.now.saturating_sub(stamp(value)));
        let (end, cleaned) = (STAMP.min(value.len()), self.state.cleaned.unwrap_or(0));
        Ok(Some(Found { bytes: value.slice(end..), stamp: value.slice(..end), age, cleaned }))
    }

    pub(super) fn acquire(
        &mut self,
        place: Place,
        token: Token,
        known: &[u8],
        step: Step<'_>,
    ) -> Result<Acquired, RemoteError> {
        if self.state.id.is_none() {
            return Err(RemoteError::Failed("NOSTATE".into()));
        }
        if let Some(found) = self.get(place, step)?.filter(|found| found.stamp != known) {
            return Ok(Acquired::Found(found));
        }
        if self.leases.get(&place.hash).is_some_and(|lease| step.at < lease.2) {
            return Ok(Acquired::Held);
        }
        let generation = self.generation(place.slot);
        self.leases.insert(place.hash, (token, generation, step.at + LEASE));
        let mark = self.marks.get(&place.hash).filter(|mark| mark.1 == generation && step.at < mark.2);
        let (copy, cleaned) = (mark.map_or(0, |mark| mark.0), self.state.cleaned.unwrap_or(0));
        Ok(Acquired::Granted(Mark { copy, now: step.now, cleaned }))
    }

    pub(super) fn renew(&mut self, place: Place, token: Token, step: Step<'_>) -> bool {
        let held = self.leases.get_mut(&place.hash).filter(|lease| lease.0 == token && step.at < lease.2);
        held.map(|lease| lease.2 = step.at + LEASE).is_some()
    }

    pub(super) fn release(&mut self, place: Place, token: Token) {
        if self.leases.get(&place.hash).is_some_and(|lease| lease.0 == token) {
            self.leases.remove(&place.hash);
        }
    }

    pub(super) fn fill(
        &mut self,
        place: Place,
        token: Token,
        fill: Fill,
        step: Step<'_>,
    ) -> Result<Filled, RemoteError> {
        let filled = self.try_fill(place, token, fill, step)?;
        let name = match filled {
            Filled::Stored { .. } => "stored",
            Filled::Lost => "lost",
            Filled::Older => "older",
        };
        step.world.count(name);
        Ok(filled)
    }

    fn try_fill(&mut self, place: Place, token: Token, fill: Fill, step: Step<'_>) -> Result<Filled, RemoteError> {
        let generation = self.generation(place.slot);
        let holds =
            |lease: &(Token, Generation, Instant)| lease.0 == token && lease.1 == generation && step.at < lease.2;
        if !self.leases.get(&place.hash).is_some_and(holds) {
            return Ok(Filled::Lost);
        }
        let there = self.stored(place.hash, step.at)?.filter(|stored| stored.generation == generation).cloned();
        if there.as_ref().is_some_and(|there| fill.version > 0 && there.version > fill.version) {
            self.leases.remove(&place.hash);
            return Ok(Filled::Older);
        }
        let kept = there.filter(|there| there.version == fill.version);
        let dies_at = step.at + fill.life;
        let mut stored = kept.unwrap_or(Stored {
            foreign: false,
            generation,
            version: fill.version,
            fields: HashMap::new(),
            dies_at,
        });
        stored.dies_at = stored.dies_at.max(dies_at);
        // Time stands still between awaits here; one stamp must still differ from the next.
        let stamp = stored.fields.get(&place.schema).map_or(step.now, |last| step.now.max(stamp(last) + 1));
        let value = [format!("{stamp:016}").as_bytes(), &fill.bytes[..]].concat();
        stored.fields.insert(place.schema, value.into());
        self.values.insert(place.hash, stored);
        if let Some((copy, life)) = fill.copy {
            self.marks.insert(place.hash, (copy, generation, step.at + life));
        }
        self.leases.remove(&place.hash);
        Ok(Filled::Stored { stamp })
    }

    pub(super) fn invalidate(&mut self, notice: &Notice) {
        for change in &*notice.changes {
            if let Changed::Key(hash) = change.what {
                self.values.remove(&hash);
                self.leases.remove(&hash);
                self.marks.remove(&hash);
            }
        }
        self.tell(notice.clone());
    }

    fn tell(&mut self, notice: Notice) {
        self.state.sequence += 1;
        self.bus.push((draw(), self.state.sequence, notice));
    }

    pub(super) fn pulse(&mut self, pulse: Pulse, step: Step<'_>) -> Beat {
        let (now, state) = (step.now, &mut self.state);
        self.replicas.insert(pulse.replica, now - u64::try_from(pulse.behind.as_millis()).unwrap());
        self.replicas.retain(|_, score| *score + SILENT > now);
        let id = draw();
        state.id.get_or_insert(id);
        *(if pulse.sees { &mut state.seen } else { &mut state.blind }) = Some(now);
        let free = state.courier.is_none_or(|(courier, until)| courier == pulse.replica || now > until);
        let courier = pulse.sees && free;
        if courier {
            state.courier = Some((pulse.replica, now + COURIER));
        }
        let ago = |at: Option<u64>| at.map(|at| Duration::from_millis(now.saturating_sub(at)));
        let oldest = self.replicas.values().min().copied().unwrap_or(now);
        Beat {
            courier,
            cleaned: state.cleaned.unwrap_or(0),
            cleaned_ago: ago(state.cleaned_at),
            seen_ago: ago(state.seen),
            replicas: self.replicas.len(),
            oldest: Duration::from_millis(now.saturating_sub(oldest)),
            blind: state.blind.is_some_and(|at| now - at < BLIND),
        }
    }

    pub(super) fn clean(&mut self, cleaning: &Cleaning, step: Step<'_>) {
        if self.state.courier.is_none_or(|(courier, _)| courier != cleaning.courier) {
            return;
        }
        if cleaning.all {
            self.state.id = Some(draw());
        }
        for Change { what, version } in &cleaning.changes {
            match what {
                Changed::Key(hash) => {
                    self.leases.remove(hash);
                    let there = self.values.get(hash).map_or(0, |stored| stored.version);
                    if *version == 0 || there < *version {
                        self.values.remove(hash);
                        self.marks.remove(hash);
                    }
                }
                Changed::Kind(slot) => {
                    let counter = draw();
                    self.state.counters.insert(*slot, counter);
                }
            }
        }
        if cleaning.tell && !cleaning.changes.is_empty() {
            self.tell(Notice { changes: cleaning.changes[..].into(), origin: 0, cause: String::new() });
        }
        if cleaning.to > 0 {
            let before = self.state.cleaned.unwrap_or(0);
            self.state.cleaned = Some(if cleaning.all { cleaning.to } else { before.max(cleaning.to) });
            self.state.cleaned_at = Some(step.now - u64::try_from(cleaning.ago.as_millis()).unwrap());
        }
    }

    pub(super) fn leave(&mut self, replica: Token, step: Step<'_>) {
        self.replicas.insert(replica, step.now + 3_600_000);
        self.state.courier = self.state.courier.filter(|(courier, _)| *courier != replica);
    }
}
