//! What the shared tier holds of one log, and what the Lua scripts do with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tiered_cache::{
    Acquired, Beat, Change, Changed, Cleaning, Fill, Filled, Found, Mark, Notice, Place, Pulse, Reached, RemoteError,
    Token, Told,
};
use tokio::time::Instant;

use super::world::World;

const LEASE: Duration = Duration::from_secs(2);
const COURIER: u64 = 2_000;
const SILENT: u64 = 60_000;
const LEFT: u64 = 3_600_000;
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
    pub(super) fields: HashMap<u32, Bytes>,
    dies_at: Instant,
}

/// What the key of the state holds; all of it is gone at once.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) id: Option<u64>,
    pub(super) sequence: u64,
    counters: HashMap<u8, u64>,
    courier: Option<(Token, u64)>,
    pub(super) cleaned: Option<u64>,
    cleaned_at: Option<u64>,
    blind: Option<u64>,
    furthest: u64,
    told: Option<Told>,
}

/// What belongs to one log.
#[derive(Clone, Default)]
pub struct Space {
    pub(super) state: State,
    pub(super) values: HashMap<u128, Stored>,
    pub(super) leases: HashMap<u128, (Token, Generation, Instant)>,
    marks: HashMap<u128, (u64, Generation, Instant)>,
    /// Entries by their ids, with their sequence numbers.
    pub(super) bus: Vec<(u64, u64, Notice)>,
    replicas: Replicas,
}

/// One key: all of it is gone at once.
#[derive(Clone, Default)]
struct Replicas {
    told: HashMap<Token, u64>,
    left: HashMap<Token, u64>,
    seeing: HashMap<Token, u64>,
}

/// Names that no server gives twice.
pub(super) fn draw() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    DRAWN.fetch_add(1, Ordering::SeqCst)
}

/// One operation: when it is done, and where.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) at: Instant,
    /// The tier's clock, in milliseconds.
    pub(super) now: u64,
    pub(super) world: &'a World,
}

/// Foreign bytes have some stamp.
fn stamp(value: &Bytes) -> u64 {
    let digits = value.get(..STAMP).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl Space {
    /// Drops any one key, by number.
    pub(super) fn evict(&mut self, number: u8) {
        match number % 6 {
            0 => self.state = State::default(),
            1 => self.values.clear(),
            2 => self.leases.clear(),
            3 => self.marks.clear(),
            4 => self.bus.clear(),
            _ => self.replicas = Replicas::default(),
        }
    }

    pub(super) fn put_foreign(&mut self, hash: u128) {
        let (fields, dies_at) = (HashMap::new(), Instant::now() + Duration::from_secs(3_600));
        self.values.insert(hash, Stored { foreign: true, generation: (None, 0), version: 0, fields, dies_at });
    }

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
        fill: &Fill,
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

    fn try_fill(&mut self, place: Place, token: Token, fill: &Fill, step: Step<'_>) -> Result<Filled, RemoteError> {
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
            match change.what {
                Changed::Key(hash) => {
                    self.values.remove(&hash);
                    self.leases.remove(&hash);
                    self.marks.remove(&hash);
                }
                Changed::Kind(slot) => drop(self.state.counters.insert(slot, draw())),
            }
        }
        self.tell(notice.clone());
    }

    pub(super) fn tell(&mut self, notice: Notice) {
        self.state.sequence += 1;
        self.bus.push((draw(), self.state.sequence, notice));
    }

    pub(super) fn pulse(&mut self, pulse: Pulse, step: Step<'_>) -> Beat {
        let (now, state) = (step.now, &mut self.state);
        let Replicas { told, left, seeing } = &mut self.replicas;
        if pulse.told > 0 {
            told.insert(pulse.replica, pulse.told.min(now));
        }
        told.retain(|_, at| *at + SILENT > now);
        seeing.retain(|_, at| *at + SILENT > now);
        left.retain(|_, at| !pulse.sees && *at + LEFT > now);
        state.id.get_or_insert_with(draw);
        if pulse.sees {
            seeing.insert(pulse.replica, now);
        } else {
            seeing.remove(&pulse.replica);
        }
        if pulse.blind {
            state.blind = Some(now);
        }
        state.furthest = state.furthest.max(pulse.read);
        let able = pulse.sees || seeing.is_empty() && pulse.read >= state.furthest;
        let free = state.courier.is_none_or(|(courier, until)| courier == pulse.replica || now > until);
        let courier = able && free;
        if courier {
            state.courier = Some((pulse.replica, now + COURIER));
        } else {
            state.courier = state.courier.filter(|(courier, _)| *courier != pulse.replica);
        }
        let since = |at: u64| Duration::from_millis(now.saturating_sub(at));
        Beat {
            now,
            courier,
            cleaned: state.cleaned.unwrap_or(0),
            cleaned_ago: state.cleaned_at.map(since),
            told: state.told,
            watched: !seeing.is_empty(),
            furthest: state.furthest,
            replicas: told.len() + left.len(),
            oldest: told.values().min().map_or(Duration::from_millis(SILENT), |at| since(*at)),
            blind: state.blind.is_some_and(|at| now - at < BLIND),
            bus: Reached { sequence: state.sequence, last: (self.bus.last().map_or(0, |entry| entry.0), 0) },
        }
    }

    pub(super) fn clean(&mut self, cleaning: &Cleaning) -> bool {
        if self.state.courier.is_none_or(|(courier, _)| courier != cleaning.courier) {
            return false;
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
        if let Some(tell) = cleaning.tell.as_ref().filter(|tell| !tell.changes.is_empty()) {
            self.tell(Notice { changes: tell.changes[..].into(), origin: 0, cause: String::new() });
        }
        if cleaning.to > 0 {
            let before = self.state.cleaned.unwrap_or(0);
            self.state.cleaned = Some(if cleaning.all { cleaning.to } else { before.max(cleaning.to) });
            self.state.cleaned_at = Some(cleaning.read_at);
        }
        let to = if cleaning.done >= self.state.furthest { cleaning.done } else { cleaning.to };
        let told = cleaning.tell.as_ref().map(|tell| Told { from: tell.from, to });
        self.state.told = told.filter(|told| told.to > 0);
        true
    }

    pub(super) fn leave(&mut self, replica: Token, sees: bool, step: Step<'_>) {
        let Replicas { told, left, seeing } = &mut self.replicas;
        told.remove(&replica);
        seeing.remove(&replica);
        left.extend((!sees).then_some((replica, step.now)));
        self.state.courier = self.state.courier.filter(|(courier, _)| *courier != replica);
    }
}
