//! One replica's way to the shared tier, with a gate before (`get`) and after (`get/after`) each operation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tiered_cache::{
    Acquired, Batch, Beat, Bus, Cleaning, Fill, Filled, Found, Notice, Place, Pulse, Reached, Remote, RemoteError,
    Token,
};
use tokio::time::Instant;

use super::space::{Space, Step};
use super::world::World;
use crate::source::way::{Does, Down, Lost, Way};

const BLOCK: Duration = Duration::from_millis(100);

impl From<Lost> for RemoteError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Refused => Self::Unavailable("refused".into()),
            Lost::Silent => Self::Timeout,
            Lost::ReadOnly => Self::Failed("NOREPLICAS Not enough good replicas to write.".into()),
        }
    }
}

#[derive(Clone)]
pub struct Link {
    to: Arc<Mutex<World>>,
    /// Where the bus is still read, if not there.
    old: Arc<Mutex<Option<World>>>,
    identity: Arc<AtomicU64>,
    /// Of the log whose bus was read last.
    heard: Arc<AtomicU64>,
    way: Way,
    bus: Way,
}

impl Link {
    pub(super) fn to(world: &World) -> Self {
        let to = Arc::new(Mutex::new(world.clone()));
        let (identity, heard) = (Arc::default(), Arc::default());
        Self { to, old: Arc::default(), identity, heard, way: Way::default(), bus: Way::default() }
    }

    pub fn bus(&self) -> Box<dyn Bus> {
        Box::new(FakeBus { link: self.clone(), position: None, server: 0 })
    }

    /// Leads to another server from now on.
    pub fn lead_to(&self, world: &World) {
        *self.to.lock().unwrap() = world.clone();
    }

    /// The same, while the connection of the bus stays with the old one.
    pub fn lead_requests_to(&self, world: &World) {
        *self.old.lock().unwrap() = Some(self.world());
        self.lead_to(world);
    }

    pub fn set(&self, down: Option<Down>) {
        self.way.set(down);
        self.bus.set(down);
    }

    pub fn cut_bus(&self, cut: bool) {
        self.bus.set(cut.then_some(Down::Silent));
    }

    pub fn slow(&self, delay: Duration) {
        self.way.slow(delay);
    }

    pub fn refuse(&self, operation: &'static str, refused: bool) {
        self.way.refuse(operation, refused);
    }

    pub fn shut(&self, gate: &'static str) {
        if gate == "bus" { self.bus.shut(gate) } else { self.way.shut(gate) }
    }

    pub fn open(&self, gate: &'static str) {
        if gate == "bus" { self.bus.open(gate) } else { self.way.open(gate) }
    }

    /// Returns when somebody stands at the gate.
    pub async fn arrived(&self, gate: &'static str) {
        self.way.arrived(gate).await;
    }

    /// The bus of the log that is followed was joined.
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::SeqCst) == self.identity.load(Ordering::SeqCst)
    }

    fn world(&self) -> World {
        self.to.lock().unwrap().clone()
    }

    async fn ask<T: Send + 'static>(
        &self,
        gates: [&'static str; 2],
        does: Does,
        work: impl FnOnce(&mut Space, Step<'_>) -> T + Send + 'static,
    ) -> Result<T, RemoteError> {
        let (world, identity) = (self.world(), self.identity.load(Ordering::SeqCst));
        world.count(gates[0]);
        let work = move || {
            let done = world.within(identity, work);
            world.news.send_modify(|()| ());
            done
        };
        Ok(self.way.carry(gates, does, work).await?)
    }
}

#[async_trait]
impl Remote for Link {
    fn follow(&self, identity: u64) {
        self.identity.store(identity, Ordering::SeqCst);
    }

    async fn get(&self, place: Place) -> Result<Option<Found>, RemoteError> {
        self.ask(["get", "get/after"], Does::Read, move |space, step| space.get(place, step)).await?
    }

    async fn acquire(&self, place: Place, token: Token, known: &[u8]) -> Result<Acquired, RemoteError> {
        let known = known.to_vec();
        let acquire = move |space: &mut Space, step: Step<'_>| space.acquire(place, token, &known, step);
        self.ask(["acquire", "acquire/after"], Does::Write, acquire).await?
    }

    async fn renew(&self, place: Place, token: Token) -> Result<bool, RemoteError> {
        let renew = move |space: &mut Space, step: Step<'_>| space.renew(place, token, step);
        self.ask(["renew", "renew/after"], Does::Write, renew).await
    }

    async fn fill(&self, place: Place, token: Token, fill: Fill) -> Result<Filled, RemoteError> {
        let fill = move |space: &mut Space, step: Step<'_>| space.fill(place, token, &fill, step);
        self.ask(["fill", "fill/after"], Does::Write, fill).await?
    }

    async fn release(&self, place: Place, token: Token) -> Result<(), RemoteError> {
        self.ask(["release", "release/after"], Does::Write, move |space, _| space.release(place, token)).await
    }

    async fn remove(&self, place: Place) -> Result<(), RemoteError> {
        let remove = move |space: &mut Space, _: Step<'_>| drop(space.values.remove(&place.hash));
        self.ask(["remove", "remove/after"], Does::Write, remove).await
    }

    async fn invalidate(&self, notice: &Notice) -> Result<(), RemoteError> {
        let notice = notice.clone();
        let invalidate = move |space: &mut Space, _: Step<'_>| space.invalidate(&notice);
        self.ask(["invalidate", "invalidate/after"], Does::Write, invalidate).await
    }

    async fn pulse(&self, pulse: Pulse) -> Result<Beat, RemoteError> {
        let beat = move |space: &mut Space, step: Step<'_>| space.pulse(pulse, step);
        self.ask(["pulse", "pulse/after"], Does::Write, beat).await
    }

    async fn clean(&self, cleaning: &Cleaning) -> Result<bool, RemoteError> {
        let cleaning = cleaning.clone();
        let clean = move |space: &mut Space, _: Step<'_>| space.clean(&cleaning);
        self.ask(["clean", "clean/after"], Does::Write, clean).await
    }

    async fn leave(&self, replica: Token, sees: bool) -> Result<(), RemoteError> {
        self.ask(["leave", "leave/after"], Does::Write, move |space, step| space.leave(replica, sees, step)).await
    }
}

/// Where a reader of the bus is.
#[derive(Clone)]
struct Position {
    identity: u64,
    id: Option<u64>,
    sequence: u64,
    /// The last entry that was seen.
    last: Option<u64>,
}

struct FakeBus {
    link: Link,
    position: Option<Position>,
    /// The server at the other end of the connection.
    server: u64,
}

#[async_trait]
impl Bus for FakeBus {
    async fn next(&mut self) -> Result<Batch, RemoteError> {
        let world = self.link.old.lock().unwrap().clone().unwrap_or_else(|| self.link.world());
        let identity = self.link.identity.load(Ordering::SeqCst);
        let mut news = world.news.subscribe();
        let sent_at = Instant::now();
        let unheard = |at: &Position| world.within(identity, |space, _| at.sequence < space.state.sequence);
        if self.position.as_ref().is_some_and(|at| at.identity == identity && !unheard(at)) {
            drop(tokio::time::timeout(BLOCK, news.changed()).await);
        }
        let server = *world.server.borrow();
        let reconnected = std::mem::replace(&mut self.server, server) != server;
        let position = self.position.clone();
        let read = move || world.within(identity, |space, _| read(position, identity, space, reconnected));
        let answer = self.link.bus.carry(["bus", "bus/after"], Does::Read, read).await;
        if answer.is_err() {
            // The next read is on another connection.
            self.server = 0;
        }
        let (notices, position) = answer?;
        self.link.heard.store(position.identity, Ordering::SeqCst);
        let reached = Reached { sequence: position.sequence, last: (position.last.unwrap_or(0), 0) };
        self.position = Some(position);
        let (gap, notices) = (notices.is_none(), notices.unwrap_or_default());
        Ok(Batch { sent_at, notices, gap, caught_up: true, reached })
    }
}

/// As `RedisBus` does, where a stream that goes back or has a hole is noticed: no notices then, and on from the end.
fn read(
    position: Option<Position>,
    identity: u64,
    space: &Space,
    reconnected: bool,
) -> (Option<Vec<Notice>>, Position) {
    let state = &space.state;
    let end =
        Position { identity, id: state.id, sequence: state.sequence, last: space.bus.last().map(|entry| entry.0) };
    let Some(mut at) = position else { return (None, end) };
    let gone = at.last.is_some_and(|last| space.bus.iter().all(|entry| entry.0 != last));
    let another = at.identity != identity || at.id != state.id;
    if another || (reconnected && gone) || state.sequence < at.sequence {
        return (None, end);
    }
    let mut notices = Vec::new();
    let seen = at.last;
    for (entry, sequence, notice) in space.bus.iter().filter(|entry| seen.is_none_or(|last| entry.0 > last)) {
        if *sequence != at.sequence + 1 {
            return (None, end);
        }
        (at.sequence, at.last) = (*sequence, Some(*entry));
        notices.push(notice.clone());
    }
    if at.sequence < state.sequence { (None, end) } else { (Some(notices), at) }
}
