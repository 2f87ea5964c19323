//! The task that reads the log, gives this replica's pulse to the shared tier, and cleans that when it is the courier.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::RemoteError;
use crate::codec::millis;
use crate::inner::Inner;
use crate::lock::lock;
use crate::log::{ChangeLog, LogRead, LogReader};
use crate::recent::Unclean;
use crate::remote::{Beat, Cleaning, Pulse, Remote, Tell};
use crate::shared::Shared;

/// A pulse follows each read of the log, which is due twice a second. One that isn't answered by then is given pulses
/// beside it, often enough that the shared tier vouches before the fence is shut.
const DUE: Duration = Duration::from_millis(550);
const HURRIED_PULSE: Duration = Duration::from_millis(150);
/// The courier's, so that it knows soon who can't read the log: the shared tier vouches from when they are told.
const COURIER_PULSE: Duration = Duration::from_millis(275);
/// A question of a pulse that takes longer is given up, however patient the shared tier is: the log is to be read meanwhile.
const ANSWER: Duration = Duration::from_millis(250);
/// All that is done at one pulse, a cleaning with it, must not keep the log from being read in time.
const DONE: Duration = Duration::from_millis(500);
/// After a failure that may come at once.
const PAUSE: Duration = Duration::from_millis(20);
/// A replica that read the log this long ago lives by it still.
const SIGHT: Duration = DUE;
/// How long the log and the shared tier are given to note that this replica ends.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Follower {
    identity: Option<u64>,
    /// What this replica last cleaned the shared tier up to; 0: nothing.
    cleaned: u64,
    /// The position from which on this replica, as the courier, has told the blind all that the log says.
    telling: Option<u64>,
    /// Some replica can't read the log: pulses are given more often.
    hurry: bool,
    courier: bool,
    /// What the shared tier's clock said last, and when that was heard.
    clock: Option<(u64, Instant)>,
}

pub(crate) async fn follow(inner: Weak<Inner>, log: Arc<dyn ChangeLog>) {
    let mut reader = log.reader();
    let mut follower = Follower::default();
    let Some(stop) = inner.upgrade().map(|inner| inner.stop.clone()) else { return };
    while stop.run_until_cancelled(follower.turn(&inner, &mut *reader)).await == Some(true) {}
    let farewell = async {
        if let Some(inner) = inner.upgrade()
            && let Some(shared) = &inner.shared
            && inner.tell_the_rest(shared).await.is_ok()
            && inner.untold.behind(Instant::now()).is_zero()
        {
            drop(shared.remote.leave(inner.replica, inner.log_part.is_well()).await);
        }
    };
    // One may be down while the other isn't. The log forgets a replica by itself, too.
    drop(tokio::time::timeout(FAREWELL, async { tokio::join!(farewell, reader.leave()) }).await);
}

impl Follower {
    /// One read of the log and what follows from it; false when the cache is gone.
    async fn turn(&mut self, inner: &Weak<Inner>, reader: &mut dyn LogReader) -> bool {
        let mut next = reader.next();
        let read = loop {
            tokio::select! {
                read = &mut next => break read,
                () = tokio::time::sleep(self.pause()) => {
                    let Some(inner) = inner.upgrade() else { return false };
                    self.pulse(&inner).await;
                }
            }
        };
        let Some(inner) = inner.upgrade() else { return false };
        inner.log_part.look(&read);
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

    /// From one pulse to the next, while the log isn't read.
    fn pause(&self) -> Duration {
        match (self.hurry, self.courier) {
            // What a blind one is told by others counts from their pulses.
            (true, _) => HURRIED_PULSE,
            (false, true) => COURIER_PULSE,
            (false, false) => DUE,
        }
    }

    fn apply(&mut self, inner: &Inner, read: &LogRead) {
        if self.identity != Some(read.identity)
            && let Some(shared) = &inner.shared
        {
            shared.remote.follow(read.identity);
        }
        self.identity = Some(read.identity);
        let news = if read.anew_since.is_some() { Vec::new() } else { inner.news(&read.changes) };
        // Remembered first: what is found in a shared tier from then on is judged by it.
        inner.recent.read(read, Instant::now());
        if read.anew_since.is_some() {
            inner.l1.clear();
            inner.flights.detach_all(|_| true);
            self.cleaned = 0;
            inner.metrics.log_gaps.inc();
        }
        inner.forget(&news);
        // The source's own number may lag behind its rows: those of a subscriber.
        let newest = read.changes.iter().map(|change| change.version).chain([read.newest]).max();
        inner.newest.fetch_max(newest.unwrap_or(0), Ordering::Relaxed);
        let mut heard = lock(&inner.heard);
        (heard.log, heard.readers) = (Some(read.sent_at), read.readers);
        drop(heard);
        inner.fence.hear(read.sent_at);
    }

    async fn pulse(&mut self, inner: &Arc<Inner>) {
        let (Some(shared), Some(_)) = (&inner.shared, self.identity) else { return };
        let work = async {
            inner.tell_the_rest(shared).await?;
            self.beat(inner, &*shared.remote).await
        };
        let outcome = tokio::time::timeout(DONE, work).await.unwrap_or(Err(RemoteError::Timeout));
        shared.part.look(&outcome);
    }

    async fn beat(&mut self, inner: &Inner, remote: &dyn Remote) -> Result<(), RemoteError> {
        let sent = Instant::now();
        // One whose read isn't answered yet may still see what the others can't.
        let sees = inner.log_part.is_well();
        let blind = !sees || inner.heard().log.is_none_or(|log| log.elapsed() >= SIGHT);
        let told = self.by_its_clock(sent).saturating_sub(millis(inner.untold.behind(sent)));
        let reads = inner.recent.reads();
        let pulse = Pulse { replica: inner.replica, told, sees, blind, read: reads.last };
        let beat = within(remote.pulse(pulse)).await?;
        self.clock = Some((beat.now, Instant::now()));
        (self.hurry, self.courier) = (beat.blind, beat.courier);
        if blind {
            let mut heard = lock(&inner.heard);
            heard.vouched = heard.vouch(&beat, reads, sent);
            heard.vouched_up_to().into_iter().for_each(|up_to| inner.fence.hear(up_to));
        }
        if !beat.courier {
            self.telling = None;
            return Ok(());
        }
        self.clean(inner, remote, &beat).await
    }

    /// What the shared tier's clock said at this time, at least; 0: it isn't known yet.
    fn by_its_clock(&self, at: Instant) -> u64 {
        let Some((clock, heard)) = self.clock else { return 0 };
        let (since, before) = (at.saturating_duration_since(heard), heard.saturating_duration_since(at));
        (clock + millis(since)).saturating_sub(millis(before))
    }

    /// The courier's part: removes from the shared tier what the log says, and tells those who can't read it.
    async fn clean(&mut self, inner: &Inner, remote: &dyn Remote, beat: &Beat) -> Result<(), RemoteError> {
        // Counts on only from one cleaning to the next.
        let telling = self.telling.take();
        let Some(log) = inner.heard().log else { return Ok(()) };
        let own = self.cleaned > 0 && self.cleaned == beat.cleaned;
        // Also what was cleaned in the turn before: a failover may have lost that, and positions stand still in idle times.
        let Unclean { changes, all, to, done } = inner.recent.unclean(beat.cleaned);
        let tell = (beat.blind && !all).then(|| match telling {
            Some(from) if own => Tell { from, changes: changes.clone() },
            // What others cleaned meanwhile wasn't told by this replica.
            _ => inner.recent.remembered(),
        });
        let telling = tell.as_ref().map(|tell| tell.from);
        let read_at = self.by_its_clock(log);
        let cleaning = Cleaning { courier: inner.replica, changes, all, to, done, read_at, tell };
        if remote.clean(&cleaning).await? {
            (self.cleaned, self.telling) = (to, telling);
        }
        Ok(())
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, RemoteError>>) -> Result<T, RemoteError> {
    tokio::time::timeout(ANSWER, answer).await?
}

impl Inner {
    /// Tells the shared tier what it couldn't be told when it was committed.
    async fn tell_the_rest(&self, shared: &Shared) -> Result<(), RemoteError> {
        match self.untold.rest() {
            Some(rest) => within(self.tell(shared, rest, String::new())).await,
            None => Ok(()),
        }
    }
}
