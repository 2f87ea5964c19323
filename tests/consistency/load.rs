//! The clients: writers, readers, and one who looks into the database.
//!
//! A key that is written all the time hides a lost invalidation, since the next one repairs it. So a few keys are
//! written all the time, by several writers at once, and most are left alone for seconds after each write.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::client::{Answer, Client};
use crate::judge::model::REPLICAS;
use crate::judge::{At, GONE, Judge, Kind, Read, Seen};

/// Keys that are written all the time.
const HOT: usize = 4;
/// Keys that are left alone after a write.
const CALM: usize = 64;
/// Keys that come and go, at a time.
const LIVE: usize = 6;
/// Readers ask for this many of the latest created ids, and the next few.
const RECENT: i64 = 24;
const READERS: u32 = 8;
/// Between two writes of one writer: to hot keys, to calm ones, creating and deleting.
const PACE: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(90), Duration::from_millis(250)];

/// What all clients share.
pub struct Load {
    begun: Instant,
    judge: Mutex<Judge>,
    addresses: Vec<SocketAddr>,
    keys: Vec<i64>,
    guests: Mutex<Guests>,
}

/// Users that are created and deleted.
#[derive(Default)]
struct Guests {
    live: Vec<i64>,
    newest: i64,
}

impl Load {
    /// Creates the users that stay.
    pub async fn prepare(addresses: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let mut load = Self {
            begun: Instant::now(),
            judge: Mutex::default(),
            addresses,
            keys: Vec::new(),
            guests: Mutex::default(),
        };
        for number in 0..HOT + CALM {
            let replica = number % REPLICAS;
            let mut client = Client::new(load.addresses[replica]);
            let id = load.create(&mut client, replica).await?.context("a user can't be created")?;
            load.keys.push(id);
            load.guests().newest = id;
        }
        load.check_min_version().await?;
        Ok(load)
    }

    /// Time since the begin.
    pub fn now(&self) -> At {
        self.begun.elapsed()
    }

    /// The judge, for a moment.
    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the clients; they go on until the set is dropped.
    pub fn start(self: &Arc<Self>, seed: u64, reads_per_second: u32, database_url: String) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        let pause = Duration::from_secs(1) * READERS * 3 / reads_per_second.max(1);
        let mut number = 0;
        let mut random = move || {
            number += 1;
            StdRng::seed_from_u64(seed.wrapping_add(number))
        };
        for replica in 0..REPLICAS {
            for _ in 0..READERS {
                clients.spawn(Arc::clone(self).read(replica, pause, random()));
            }
            clients.spawn(Arc::clone(self).write(replica, 0..=HOT - 1, PACE[0], random()));
            clients.spawn(Arc::clone(self).write(replica, HOT..=HOT + CALM - 1, PACE[1], random()));
            clients.spawn(Arc::clone(self).host(replica, random()));
        }
        clients.spawn(Arc::clone(self).observe(database_url));
        clients
    }

    async fn read(self: Arc<Self>, replica: usize, pause: Duration, mut random: StdRng) {
        let mut client = Client::new(self.addresses[replica]);
        let mut pace = paced(pause);
        loop {
            pace.tick().await;
            let (key, hot) = match random.random_range(0..20) {
                0..4 => (self.keys[random.random_range(0..HOT)], true),
                4..17 => (self.keys[random.random_range(HOT..HOT + CALM)], false),
                _ => (self.guests().newest + random.random_range(-RECENT..=2), false),
            };
            // Only of hot keys: such a read repairs what others were to find.
            let asked = if hot && random.random_ratio(1, 4) { self.judge().floor(key).unwrap_or(0) } else { 0 };
            let start = self.now();
            let answer = client.get(&format!("/api/users/{key}"), asked).await;
            let end = self.now();
            let seen = answer.as_ref().ok().and_then(seen);
            let tier = answer.map_or("nobody", |answer| answer.tier);
            match seen {
                Some(seen) => self.judge().read(Read { key, replica, start, end, asked, seen, tier }),
                None => {
                    self.judge().failed_read();
                    // A replica that is down refuses at once.
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn write(self: Arc<Self>, replica: usize, which: RangeInclusive<usize>, pause: Duration, mut random: StdRng) {
        let mut client = Client::new(self.addresses[replica]);
        let mut pace = paced(pause);
        loop {
            pace.tick().await;
            let key = self.keys[random.random_range(which.clone())];
            self.replace(&mut client, replica, key).await;
        }
    }

    /// Creates, renames and deletes guests.
    async fn host(self: Arc<Self>, replica: usize, mut random: StdRng) {
        let mut client = Client::new(self.addresses[replica]);
        let mut pace = paced(PACE[2]);
        loop {
            pace.tick().await;
            let guest = {
                let mut guests = self.guests();
                let chosen = random.random_range(0..LIVE);
                (chosen < guests.live.len()).then(|| guests.live.swap_remove(chosen))
            };
            match guest {
                None => {
                    if let Ok(Some(id)) = self.create(&mut client, replica).await {
                        let mut guests = self.guests();
                        guests.newest = guests.newest.max(id);
                        guests.live.push(id);
                    }
                }
                Some(id) if random.random_ratio(1, 2) => {
                    self.replace(&mut client, replica, id).await;
                    self.guests().live.push(id);
                }
                Some(id) => {
                    let number = self.judge().begin(Kind::Delete, Some(id), replica, self.now());
                    let answer = client.write("DELETE", &format!("/api/users/{id}"), "").await;
                    self.end(number, Some(id), answer.map(|answer| (answer.status, Some(GONE))));
                }
            }
        }
    }

    async fn replace(&self, client: &mut Client, replica: usize, key: i64) {
        let number = self.judge().begin(Kind::Replace, Some(key), replica, self.now());
        let body = format!(r#"{{"name":"w{number}","email":"{key}@example.com"}}"#);
        let answer = client.write("PUT", &format!("/api/users/{key}"), &body).await;
        self.end(number, Some(key), answer.map(|answer| (answer.status, answer.version)));
    }

    /// The new user's id; `None` when it is unknown.
    async fn create(&self, client: &mut Client, replica: usize) -> anyhow::Result<Option<i64>> {
        let number = self.judge().begin(Kind::Create, None, replica, self.now());
        let body = format!(r#"{{"name":"w{number}","email":"new{number}@example.com"}}"#);
        let answer = client.write("POST", "/api/users", &body).await;
        let id = answer.as_ref().ok().and_then(|answer| json(answer)?["user"]["id"].as_i64());
        if let Ok(Answer { status: 201, version, .. }) = &answer {
            ensure!(version.is_some(), "writes are answered without X-Version: nothing can be checked");
        }
        self.end(number, id, answer.map(|answer| (answer.status, answer.version)));
        Ok(id)
    }

    fn end(&self, number: u64, key: Option<i64>, answer: std::io::Result<(u16, Option<u64>)>) {
        let mut judge = self.judge();
        let now = self.now();
        match (answer, key) {
            (Ok((200..300, Some(version))), Some(key)) => judge.done(number, key, version, now),
            (Ok((400..500, _)), _) => judge.refused(number, now),
            _ => judge.unknown(number, now),
        }
    }

    /// Looks into the database, so that writes whose answer was lost count too; and lets the judge forget.
    async fn observe(self: Arc<Self>, url: String) {
        let mut pace = paced(Duration::from_millis(250));
        let mut database = None;
        loop {
            pace.tick().await;
            self.judge().prune(self.now());
            let client = match &database {
                Some(client) => client,
                None => match connect(&url).await {
                    Ok(client) => database.insert(client),
                    Err(_) => continue,
                },
            };
            let begun = self.now();
            match client.query("select id, version from users", &[]).await {
                Ok(rows) => self.compare(&rows, begun),
                Err(_) => database = None,
            }
        }
    }

    fn compare(&self, rows: &[tokio_postgres::Row], begun: At) {
        let mut judge = self.judge();
        let now = self.now();
        let newest = self.guests().newest;
        let mut there = std::collections::HashSet::new();
        for row in rows {
            let id: i64 = row.get("id");
            there.insert(id);
            judge.observed(id, row.get::<_, i64>("version").unsigned_abs(), begun, now);
        }
        for id in (newest - RECENT..=newest).filter(|id| !there.contains(id)) {
            judge.observed(id, GONE, begun, now);
        }
    }

    /// A version that nobody has reached is refused, or the service doesn't look at the header at all.
    async fn check_min_version(&self) -> anyhow::Result<()> {
        let answer = Client::new(self.addresses[0]).get(&format!("/api/users/{}", self.keys[0]), 1 << 52).await?;
        ensure!(answer.status == 409, "X-Min-Version is ignored: GET answered {}", answer.status);
        Ok(())
    }
}

/// What the client saw; `None` for an error.
fn seen(answer: &Answer) -> Option<Seen> {
    match answer.status {
        200 => {
            let body = json(answer)?;
            let write = body["user"]["name"].as_str()?.strip_prefix('w')?.parse().ok()?;
            Some(Seen::Value { version: answer.etag?, write })
        }
        404 => Some(Seen::Absent),
        409 => Some(Seen::Behind),
        _ => None,
    }
}

fn json(answer: &Answer) -> Option<Value> {
    serde_json::from_slice(&answer.body).ok()
}

fn paced(pause: Duration) -> tokio::time::Interval {
    let mut pace = interval(pause);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    pace
}

async fn connect(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
