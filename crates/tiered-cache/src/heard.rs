//! What this replica heard, and what the shared tier vouches for while the log can't be read.

use std::time::Duration;

use tokio::time::Instant;

use crate::recent::Reads;
use crate::remote::{Beat, Reached};

/// How long a commit may take to become known to its writer, which says from then on that it isn't told yet.
const ACKNOWLEDGED: Duration = Duration::from_millis(50);

/// What was heard when; all times are those before an answered question was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Heard {
    pub(crate) log: Option<Instant>,
    pub(crate) bus: Option<Instant>,
    /// Since then no notice of the bus was missed.
    pub(crate) bus_unbroken_since: Option<Instant>,
    /// How many replicas read the log, as it said last.
    pub(crate) readers: usize,
    /// How far the bus was read.
    pub(crate) reached: Reached,
    /// What the shared tier said last to a replica that can't read the log.
    pub(crate) vouched: Option<Vouched>,
}

/// All notices of what was committed up to some time are on the bus.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vouched {
    up_to: Instant,
    notices: Reached,
}

impl Heard {
    /// Up to when all was heard that the shared tier vouches for: its notices were read, and none was missed since this
    /// replica read the log itself.
    pub(crate) fn vouched_up_to(&self) -> Option<Instant> {
        let unbroken = self.bus_unbroken_since? <= self.log?;
        let read = self.vouched.filter(|vouched| unbroken && self.reached.covers(vouched.notices));
        read.map(|vouched| vouched.up_to)
    }

    /// Up to when the shared tier vouches that all notices were given of what this replica, which can't read the log,
    /// doesn't know.
    ///
    /// All replicas that read the log must give their pulse to the same tier: then whatever they committed is told there.
    /// What others committed must have been told by the courier from where this replica read last: lately, while anybody
    /// reads the log; else as far as anybody has read it.
    pub(crate) fn vouch(&self, beat: &Beat, reads: Reads, sent: Instant) -> Option<Vouched> {
        if self.readers == 0 || beat.replicas < self.readers {
            return None;
        }
        let told = beat.told.filter(|told| told.from <= reads.before);
        let read = if beat.watched {
            sent.checked_sub(told.and(beat.cleaned_ago)?)?
        } else if reads.last >= beat.furthest || told.is_some_and(|told| told.to >= beat.furthest) {
            sent
        } else {
            return None;
        };
        let up_to = read.min(sent.checked_sub(beat.oldest + ACKNOWLEDGED)?);
        Some(Vouched { up_to, notices: beat.bus })
    }
}
