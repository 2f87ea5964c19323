//! The task that reads the log, gives this replica's pulse to the shared tier, and cleans that when it is the courier.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::RemoteError;
use crate::flight::lock;
use crate::inner::{Inner, Vouched};
use crate::log::{ChangeLog, LogRead};
use crate::remote::{Beat, Cleaning, Pulse, Remote};

/// A pulse follows each read of the log, which is due twice a second. One that isn't answered by then is given pulses
/// beside it, often enough that the shared tier vouches before the fence is shut.
const DUE: Duration = Duration::from_millis(550);
const PULSE: Duration = Duration::from_millis(150);
/// A question of a pulse that takes longer is given up, however patient the shared tier is: the log is to be read meanwhile.
const ANSWER: Duration = Duration::from_millis(250);
/// After a failure that may come at once.
const PAUSE: Duration = Duration::from_millis(20);
/// A replica that saw the log this long ago still sees it.
const SIGHT: Duration = Duration::from_millis(600);
/// How long the log and the shared tier are given to note that this replica ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a replica that is telling just now may be behind by: longer than it waits for an answer.
const TELLING: Duration = Duration::from_millis(150);

#[derive(Default)]
struct Follower {
    identity: Option<u64>,
    /// What this replica last cleaned the shared tier up to, and the last read of the log that was part of it.
    cleaned: Option<(u64, u64)>,
    /// Some replica lived by the bus at the last pulse.
    blind: bool,
    /// Since when this replica itself can't read the log, as far as others know.
    blind_since: Option<Instant>,
}

pub(crate) async fn follow(inner: Weak<Inner>, log: Arc<dyn ChangeLog>) {
    let mut reader = log.reader();
    let mut follower = Follower::default();
    let Some(stop) = inner.upgrade().map(|inner| inner.stop.clone()) else { return };
    while stop.run_until_cancelled(follower.turn(&inner, &mut *reader)).await == Some(true) {}
    let farewell = async {
        reader.leave().await;
        if let Some(inner) = inner.upgrade()
            && let Some(remote) = &inner.remote
        {
            drop(remote.leave(inner.replica).await);
        }
    };
    // In vain where the source is down: then it forgets this replica by itself.
    drop(tokio::time::timeout(FAREWELL, farewell).await);
}

impl Follower {
    /// One read of the log and what follows from it; false when the cache is gone.
    async fn turn(&mut self, inner: &Weak<Inner>, reader: &mut dyn crate::log::LogReader) -> bool {
        let mut next = reader.next();
        // What a blind one is told by others counts from their pulses.
        let first = if self.blind || self.blind_since.is_some() { PULSE } else { DUE };
        let mut pulse = tokio::time::interval_at(Instant::now() + first, PULSE);
        let read = loop {
            tokio::select! {
                read = &mut next => break read,
                _ = pulse.tick() => {
                    let Some(inner) = inner.upgrade() else { return false };
                    self.pulse(&inner).await;
                }
            }
        };
        let Some(inner) = inner.upgrade() else { return false };
        inner.log_state.note(&read);
        match read {
            Ok(read) => self.apply(&inner, &read),
            Err(_) => {
                inner.metrics.log_errors.inc();
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.pulse(&inner).await;
        true
    }

    fn apply(&mut self, inner: &Inner, read: &LogRead) {
        if self.identity != Some(read.identity)
            && let Some(remote) = &inner.remote
        {
            remote.follow(read.identity);
        }
        self.identity = Some(read.identity);
        let news = if read.anew_since.is_some() { Vec::new() } else { inner.news(&read.changes) };
        // Remembered first: what is found in a shared tier from then on is judged by it.
        inner.recent.read(read, Instant::now());
        if read.anew_since.is_some() {
            inner.l1.clear();
            inner.flights.detach_all();
            self.cleaned = None;
            inner.metrics.log_gaps.inc();
        }
        inner.forget(&news);
        inner.newest.fetch_max(read.newest, Ordering::Relaxed);
        let mut heard = lock(&inner.heard);
        (heard.log, heard.replicas) = (Some(read.sent_at), read.readers);
        drop(heard);
        inner.fence.hear(read.sent_at);
    }

    async fn pulse(&mut self, inner: &Arc<Inner>) {
        let (Some(remote), Some(_)) = (&inner.remote, self.identity) else { return };
        let heard = inner.heard();
        let sent = Instant::now();
        let sees =
            inner.log_state.is_well() && heard.log.is_some_and(|log| sent.saturating_duration_since(log) < SIGHT);
        let outcome = match inner.tell_the_rest().await {
            Ok(()) => within(self.beat(inner, &**remote, sees)).await,
            Err(error) => Err(error),
        };
        inner.remote_state.note(&outcome);
    }

    async fn beat(&mut self, inner: &Inner, remote: &dyn Remote, sees: bool) -> Result<(), RemoteError> {
        let sent = Instant::now();
        let behind = inner.untold.behind(sent);
        let beat = remote.pulse(Pulse { replica: inner.replica, behind, sees }).await?;
        if sees {
            self.blind_since = None;
        } else {
            let since = *self.blind_since.get_or_insert(sent);
            let vouched = vouched(inner, &beat, sent, since);
            let mut heard = lock(&inner.heard);
            heard.vouched = [vouched, heard.vouched[0]];
        }
        if beat.courier {
            self.clean(inner, remote, &beat).await?;
        }
        self.blind = beat.blind;
        Ok(())
    }

    /// The courier's part: removes from the shared tier what the log says.
    async fn clean(&mut self, inner: &Inner, remote: &dyn Remote, beat: &Beat) -> Result<(), RemoteError> {
        let Some(log) = inner.heard().log else { return Ok(()) };
        let from = match self.cleaned {
            Some((to, done)) if to == beat.cleaned => done,
            _ => beat.cleaned,
        };
        let mut unclean = inner.recent.unclean(from);
        if beat.blind && !self.blind {
            // It has read the log up to some time ago; what came since it hears from here.
            unclean.changes = inner.recent.told();
        }
        let cleaning = Cleaning {
            courier: inner.replica,
            changes: unclean.changes,
            all: unclean.all,
            to: unclean.to,
            ago: log.elapsed(),
            tell: beat.blind,
        };
        remote.clean(&cleaning).await?;
        self.cleaned = (unclean.to > 0).then_some((unclean.to, unclean.done));
        Ok(())
    }
}

/// Up to when the shared tier vouches that all notices were given of what this replica, which can't read the log, doesn't
/// know.
///
/// All replicas that read the log must give their pulse to the same tier: then whatever they committed is told there. If
/// some can read the log, the courier must have told what it says.
fn vouched(inner: &Inner, beat: &Beat, sent: Instant, blind_since: Instant) -> Option<Vouched> {
    let replicas = inner.heard().replicas;
    if replicas == 0 || beat.replicas < replicas {
        return None;
    }
    let told = sent.checked_sub(beat.oldest + TELLING)?;
    let read = match (beat.seen_ago, beat.cleaned_ago) {
        (Some(seen), cleaned) if seen < SIGHT => sent.checked_sub(cleaned?).filter(|read| *read > blind_since)?,
        _ => sent,
    };
    Some(Vouched { up_to: told.min(read), since: Instant::now() })
}

async fn within<T>(answer: impl Future<Output = Result<T, RemoteError>>) -> Result<T, RemoteError> {
    tokio::time::timeout(ANSWER, answer).await?
}

impl Inner {
    /// Tells the shared tier what it couldn't be told when it was committed.
    async fn tell_the_rest(&self) -> Result<(), RemoteError> {
        let Some(left) = self.untold.take() else { return Ok(()) };
        let told = within(self.tell(&left.changes)).await;
        if told.is_err() {
            self.untold.give_back(&left);
        }
        told
    }
}
