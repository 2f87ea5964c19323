//! The source's log of changes in memory, and the one row that changes: a commit is in both in the same step, whoever
//! commits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tiered_cache::{CacheKey, Change, ChangeLog, Changed, LoadError, LogRead, LogReader};
use tokio::sync::watch;
use tokio::time::Instant;

use super::way::{Does, Down, Way};
use super::{SourceDown, key};

const TURN: Duration = Duration::from_millis(500);
/// A read that isn't answered is given up.
const GIVEN_UP: Duration = Duration::from_secs(1);
/// A reader that is silent for so long isn't counted any more.
const SILENT: Duration = Duration::from_secs(30);
/// Beyond, a reader that lost its place is told nothing but that.
const MOST: usize = 50_000;

/// The row, as one commit left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub version: u64,
    /// Counts commits and is never given twice, as versions are where commits were lost.
    pub serial: u64,
}

struct Entry {
    change: Change,
    /// The row before it.
    before: Row,
}

/// What became of a commit of the row.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub row: Row,
    pub at: Instant,
    /// When the first reader of the log saw it.
    pub seen: Option<Instant>,
    pub lost: Option<Instant>,
    /// When the first reader of the log saw that.
    pub missed: Option<Instant>,
}

struct Data {
    row: Row,
    serials: u64,
    commits: Vec<Commit>,
    identity: u64,
    entries: Vec<Entry>,
    pruned: usize,
    pruned_position: u64,
    turn: u64,
    readers: HashMap<u64, Instant>,
}

/// The database.
#[derive(Clone)]
pub struct Log {
    data: Arc<Mutex<Data>>,
    asked: Arc<AtomicU64>,
    woken: watch::Sender<()>,
}

impl Log {
    pub fn new() -> Self {
        let data = Data {
            row: Row { version: 1, serial: 1 },
            serials: 1,
            commits: Vec::new(),
            identity: 1,
            entries: Vec::new(),
            pruned: 0,
            pruned_position: 0,
            turn: 0,
            readers: HashMap::new(),
        };
        Self { data: Arc::new(Mutex::new(data)), asked: Arc::default(), woken: watch::Sender::new(()) }
    }

    /// One replica's way to it.
    pub fn way(&self) -> LogWay {
        LogWay { log: self.clone(), way: Way::default() }
    }

    pub fn row(&self) -> Row {
        self.lock().row
    }

    /// Changes the row and tells nobody.
    pub fn change_silently(&self, version: u64) -> Row {
        self.lock().change(version)
    }

    /// Commits a new version of the row.
    pub fn commit(&self, versioned: bool) -> Row {
        let mut data = self.lock();
        let version = data.row.version + 1;
        data.note(Changed::Key(key(1).hash()), if versioned { version } else { 0 });
        data.change(version)
    }

    /// Commits a new version of everything of the kind in one statement.
    pub fn commit_all(&self) -> Row {
        let mut data = self.lock();
        let version = data.row.version + 1;
        data.note(Changed::Kind(key(1).slot()), 0);
        data.change(version)
    }

    /// Goes on as another database, without the last commits: a failover, a restore.
    pub fn begin_anew(&self, lost: usize) {
        let mut data = self.lock();
        let left = data.entries.len().saturating_sub(lost).max(data.pruned);
        if let Some(lost) = data.entries.split_off(left).first() {
            data.row = lost.before;
            let (serial, now) = (lost.before.serial, Instant::now());
            let lost = data.commits.iter_mut().filter(|commit| commit.row.serial > serial && commit.lost.is_none());
            lost.for_each(|commit| commit.lost = Some(now));
        }
        data.identity += 1;
        // Sequences go back, too.
        data.turn /= 2;
        data.pruned_position = data.pruned_position.min(data.turn);
    }

    /// Forgets all entries, as far as those who haven't read them are concerned.
    pub fn prune(&self) {
        let mut data = self.lock();
        data.pruned = data.entries.len();
        data.pruned_position = data.draw();
    }

    /// Commits changes of so many other things at once.
    pub fn fill(&self, changes: u128) {
        let mut data = self.lock();
        (0..changes).for_each(|name| data.note(Changed::Key(name), 0));
    }

    /// All that was ever committed.
    pub fn commits(&self) -> Vec<Commit> {
        self.lock().commits.clone()
    }

    /// How often it was asked for what is new.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap()
    }
}

impl Commit {
    fn see(&mut self) {
        let now = Some(Instant::now());
        if self.lost.is_none() {
            self.seen = self.seen.or(now);
        } else {
            self.missed = self.missed.or(now);
        }
    }
}

impl Data {
    fn change(&mut self, version: u64) -> Row {
        self.serials += 1;
        self.row = Row { version, serial: self.serials };
        self.commits.push(Commit { row: self.row, at: Instant::now(), seen: None, lost: None, missed: None });
        self.row
    }

    fn note(&mut self, what: Changed, version: u64) {
        self.entries.push(Entry { change: Change { what, version }, before: self.row });
    }

    fn draw(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn readers(&self) -> usize {
        self.readers.values().filter(|seen| seen.elapsed() < SILENT).count()
    }

    /// All that a read sees, but for what is drawn later, and the end of what it saw.
    fn see(&self, place: Option<(u64, usize)>, sent_at: Instant) -> (LogRead, usize) {
        let kept = place.filter(|(identity, at)| *identity == self.identity && *at >= self.pruned);
        let (anew_since, from) = kept.map_or((Some(self.pruned_position), self.pruned), |(_, at)| (None, at));
        let changes = self.entries[from..].iter().map(|entry| entry.change.clone()).collect();
        let (identity, newest) = (self.identity, self.row.version);
        (LogRead { sent_at, identity, anew_since, position: 0, changes, readers: 0, newest }, self.entries.len())
    }
}

/// One replica's way to the log.
#[derive(Clone)]
pub struct LogWay {
    log: Log,
    way: Way,
}

impl LogWay {
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Cuts it, or mends it.
    pub fn cut(&self, down: Option<Down>) {
        self.way.set(down);
    }

    async fn ask<T: Send + 'static>(
        &self,
        gates: [&'static str; 2],
        work: impl FnOnce(&mut Data) -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        let log = self.log.clone();
        let asked = self.way.carry(gates, Does::Write, move || work(&mut log.lock()));
        asked.await.map_err(|_| Arc::new(SourceDown) as LoadError)
    }
}

#[async_trait]
impl ChangeLog for LogWay {
    fn reader(&self) -> Box<dyn LogReader> {
        let woken = self.log.woken.subscribe();
        Box::new(Reader { at: self.clone(), name: rand::random(), due: Instant::now(), place: None, woken })
    }

    async fn append(&self, keys: &[CacheKey]) -> Result<(), LoadError> {
        let hashes: Vec<u128> = keys.iter().map(CacheKey::hash).collect();
        let append = move |data: &mut Data| hashes.into_iter().for_each(|hash| data.note(Changed::Key(hash), 0));
        self.ask(["append", "append/after"], append).await
    }

    async fn wake(&self) -> Result<(), LoadError> {
        let woken = self.log.woken.clone();
        self.ask(["wake", "wake/after"], move |_| woken.send_modify(|()| ())).await
    }
}

struct Reader {
    at: LogWay,
    name: u64,
    due: Instant,
    /// The log's identity, and how many of its entries were read.
    place: Option<(u64, usize)>,
    woken: watch::Receiver<()>,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<LogRead, LoadError> {
        tokio::select! {
            () = tokio::time::sleep_until(self.due) => {}
            _ = self.woken.changed() => {}
        }
        self.woken.mark_unchanged();
        self.at.log.asked.fetch_add(1, Ordering::SeqCst);
        let (sent_at, at) = (Instant::now(), self.at.clone());
        self.due = sent_at + TURN;
        if at.way.down() == Some(Down::Silent) {
            tokio::time::sleep(GIVEN_UP).await;
            return Err(Arc::new(SourceDown));
        }
        // What it sees is fixed first, and its position drawn later.
        let place = self.place;
        let mut read = at.ask(["log", "log/seen"], move |data| data.see(place, sent_at)).await?;
        let (name, identity, end) = (self.name, read.0.identity, read.1);
        let idle = read.0.changes.is_empty() && read.0.anew_since.is_none();
        let drawn = at.ask(["log/draw", "log/after"], move |data| {
            data.readers.insert(name, sent_at);
            data.commits.iter_mut().for_each(Commit::see);
            (data.identity == identity).then(|| (if idle { data.turn } else { data.draw() }, data.readers()))
        });
        let Some((position, readers)) = drawn.await? else { return Err(Arc::new(SourceDown)) };
        self.place = Some((identity, end));
        (read.0.position, read.0.readers) = (position, readers);
        if read.0.anew_since.is_some() && read.0.changes.len() > MOST {
            (read.0.anew_since, read.0.changes) = (Some(position), Vec::new());
        }
        Ok(read.0)
    }

    async fn leave(&mut self) {
        if self.at.way.down() == Some(Down::Silent) {
            tokio::time::sleep(GIVEN_UP).await;
        }
        let name = self.name;
        drop(self.at.ask(["log/leave", "log/left"], move |data| data.readers.remove(&name)).await);
    }
}
