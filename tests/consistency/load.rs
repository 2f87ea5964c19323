//! The clients: writers, readers, one who writes by plain SQL, and one who looks into the database.
//!
//! A key that is written all the time hides a lost invalidation, since the next one repairs it. So a few keys are
//! written all the time, by several writers at once, and most are left alone for seconds after each write.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
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
use crate::judge::{At, GONE, Judge, Kind, Read, SQL, Seen};

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
/// Between two writes by plain SQL.
const SQL_PACE: Duration = Duration::from_millis(110);
/// Users that nobody reads: with them a statement changes more rows than the log names one by one.
const CROWD: i32 = 1200;
const DATABASE: Duration = Duration::from_secs(5);

/// What all clients share.
pub struct Load {
    begun: Instant,
    judge: Mutex<Judge>,
    addresses: Vec<SocketAddr>,
    keys: Vec<i64>,
    guests: Mutex<Guests>,
    database_url: String,
}

/// Users that are created and deleted.
#[derive(Default)]
struct Guests {
    live: Vec<i64>,
    newest: i64,
}

impl Load {
    /// Creates the users that stay.
    pub async fn prepare(addresses: Vec<SocketAddr>, database_url: String) -> anyhow::Result<Self> {
        let mut load = Self {
            begun: Instant::now(),
            judge: Mutex::default(),
            addresses,
            keys: Vec::new(),
            guests: Mutex::default(),
            database_url,
        };
        let crowd = "insert into users (name, email) select 'crowd', i || '@crowd' from generate_series(1, $1) as i";
        load.database().await?.execute(crowd, &[&CROWD]).await?;
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

    /// A connection of our own, by the way that is cut when the database is to be seen by nobody.
    async fn database(&self) -> anyhow::Result<tokio_postgres::Client> {
        within(connect(&self.database_url)).await
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the clients; they go on until the set is dropped.
    pub fn start(self: &Arc<Self>, seed: u64, reads_per_second: u32) -> JoinSet<()> {
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
        clients.spawn(Arc::clone(self).write_by_sql(random()));
        clients.spawn(Arc::clone(self).observe());
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

    /// Writes as another program would, which knows nothing of the service.
    async fn write_by_sql(self: Arc<Self>, mut random: StdRng) {
        let mut pace = paced(SQL_PACE);
        let mut database = None;
        loop {
            pace.tick().await;
            let key = self.keys[random.random_range(0..HOT + CALM)];
            let client = match &mut database {
                Some(client) => client,
                None => match self.database().await {
                    Ok(client) => database.insert(client),
                    Err(_) => continue,
                },
            };
            let update = "update users set name = new.name from unnest($1::bigint[], $2::text[]) as new (id, name) \
                          where users.id = new.id returning users.id, version";
            if self.change(client, ["", ""], update, &[key]).await.is_err() {
                database = None;
            }
        }
    }

    /// Changes every user that stays, and the crowd, in one statement.
    pub async fn change_all(&self) -> anyhow::Result<()> {
        let update = "update users set name = coalesce(new.name, users.name) \
                      from users as old left join unnest($1::bigint[], $2::text[]) as new (id, name) using (id) \
                      where users.id = old.id and (new.id is not null or old.name = 'crowd') \
                      returning users.id, users.version";
        self.change(&mut self.database().await?, ["", ""], update, &self.keys).await
    }

    /// Replaces the users that stay by others of the same ids, as a restored dump does, which takes its sequences along.
    pub async fn restore(&self) -> anyhow::Result<()> {
        let kept = format!("'{{{}}}'", list(&self.keys));
        let before = format!(
            "create temporary table kept on commit drop as select id, email from users where id = any ({kept}); \
             delete from users where id = any ({kept})"
        );
        let insert = "insert into users (id, name, email) select id, new.name, email \
                      from kept join unnest($1::bigint[], $2::text[]) as new (id, name) using (id) returning id, version";
        let around = [&*before, "select setval('row_version', 1)"];
        self.change(&mut self.database().await?, around, insert, &self.keys).await
    }

    /// One transaction that writes these users; the judge hears of each as of a write of its own.
    async fn change(
        &self,
        client: &mut tokio_postgres::Client,
        [before, after]: [&str; 2],
        statement: &str,
        keys: &[i64],
    ) -> anyhow::Result<()> {
        let numbers: Vec<u64> = {
            let (mut judge, now) = (self.judge(), self.now());
            keys.iter().map(|key| judge.begin(Kind::Replace, Some(*key), SQL, now)).collect()
        };
        let names: Vec<String> = numbers.iter().map(|number| format!("w{number}")).collect();
        let outcome = within(async {
            let transaction = client.transaction().await?;
            transaction.batch_execute(before).await?;
            let rows = transaction.query(statement, &[&keys, &names]).await?;
            transaction.batch_execute(after).await?;
            transaction.commit().await?;
            Ok(rows)
        })
        .await;
        let versions: HashMap<i64, u64> = outcome.as_ref().map(|rows| versions(rows)).unwrap_or_default();
        for (key, number) in keys.iter().zip(numbers) {
            let version = versions.get(key).copied();
            self.end(number, Some(*key), outcome.as_ref().map(|_| (200, version)).map_err(|_| ErrorKind::Other.into()));
        }
        outcome.map(drop)
    }

    /// The database was set back to what it was at `kept`.
    pub async fn went_back(&self, url: &str, kept: At) -> anyhow::Result<()> {
        let rows = connect(url).await?.query("select id, version, name from users", &[]).await?;
        let number = |row: &tokio_postgres::Row| row.get::<_, &str>("name").strip_prefix('w')?.parse().ok();
        let (there, rows): (HashSet<u64>, _) = (rows.iter().filter_map(number).collect(), versions(&rows));
        let now = self.now();
        self.guests().newest = rows.keys().copied().max().unwrap_or_default();
        self.judge().went_back(&rows, &there, kept, now);
        Ok(())
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
    async fn observe(self: Arc<Self>) {
        let mut pace = paced(Duration::from_millis(250));
        let mut database = None;
        loop {
            pace.tick().await;
            self.judge().prune(self.now());
            let client = match &database {
                Some(client) => client,
                None => match self.database().await {
                    Ok(client) => database.insert(client),
                    Err(_) => continue,
                },
            };
            let begun = self.now();
            let look = within(async { Ok(client.query("select id, version from users", &[]).await?) });
            match look.await {
                Ok(rows) => self.compare(&rows, begun),
                Err(_) => database = None,
            }
        }
    }

    fn compare(&self, rows: &[tokio_postgres::Row], begun: At) {
        let mut judge = self.judge();
        let now = self.now();
        let newest = self.guests().newest;
        let mut there = HashSet::new();
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

fn versions(rows: &[tokio_postgres::Row]) -> HashMap<i64, u64> {
    rows.iter().map(|row| (row.get("id"), row.get::<_, i64>("version").unsigned_abs())).collect()
}

fn list(keys: &[i64]) -> String {
    keys.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

/// A statement of ours doesn't wait longer for a database that is being broken than the service would.
async fn within<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(DATABASE, work).await?
}

async fn connect(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
