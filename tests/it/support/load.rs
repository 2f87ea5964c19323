//! A steady load of requests while something breaks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devkit::wait_until;
use serde_json::json;
use tokio::task::JoinSet;

use super::{LIMIT, TOKEN, TestApp};

/// Users that [`Load`] reads and writes.
pub const USERS: i64 = 5000;
/// Read all the time, and so mostly from the cache.
const HOT: i64 = 5;
/// Written all the time.
const WRITTEN: std::ops::RangeInclusive<i64> = 101..=105;
/// Read once each, and so from the database.
const COLD: i64 = 201;

/// Reads of hot and of cold users and writes, one after the other each, until told to stop.
pub struct Load {
    clients: JoinSet<()>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    hot: AtomicU64,
    cold: AtomicU64,
    written: AtomicU64,
    slowest_hot: Mutex<Duration>,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Starts the clients; the database must have [`USERS`] users.
    pub fn start(app: &TestApp) -> Self {
        let seen = Arc::new(Seen::default());
        let mut clients = JoinSet::new();
        let (client, url) = (app.client.clone(), app.url.clone());
        clients.spawn(repeat(
            Arc::clone(&seen),
            |seen| &seen.hot,
            move |turn| client.get(format!("{url}/api/users/{}", 1 + turn % HOT)),
        ));
        let (client, url) = (app.client.clone(), app.url.clone());
        clients.spawn(repeat(
            Arc::clone(&seen),
            |seen| &seen.cold,
            move |turn| client.get(format!("{url}/api/users/{}", COLD + turn % (USERS - COLD))),
        ));
        let (client, url) = (app.client.clone(), app.url.clone());
        clients.spawn(repeat(
            Arc::clone(&seen),
            |seen| &seen.written,
            move |turn| {
                let id = WRITTEN.start() + turn % HOT;
                let body = json!({"name": format!("Name {turn}"), "email": format!("user{id}@example.com")});
                client.put(format!("{url}/api/users/{id}")).bearer_auth(TOKEN).json(&body)
            },
        ));
        Self { clients, seen }
    }

    /// Waits until each client has been answered so many times more.
    pub async fn wait_for_more(&self, more: u64) {
        let counts = || [&self.seen.hot, &self.seen.cold, &self.seen.written].map(|count| count.load(Ordering::SeqCst));
        let before = counts();
        let done = async || self.failed() || counts().iter().zip(before).all(|(now, before)| *now >= before + more);
        wait_until("the load is answered", LIMIT, done).await.unwrap();
    }

    fn failed(&self) -> bool {
        !self.seen.failures.lock().unwrap().is_empty()
    }

    /// Stops, and asserts that every request was answered with 200 and no hot read was slow.
    pub async fn assert_no_failure(self) {
        self.seen.stop.store(true, Ordering::SeqCst);
        self.clients.join_all().await;
        let failures = self.seen.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} requests failed: {:?}", failures.len(), &failures[..failures.len().min(3)]);
        let slowest = *self.seen.slowest_hot.lock().unwrap();
        // A lease that Redis granted without the answer's coming through is waited for while it lasts, 2 s.
        assert!(slowest < Duration::from_secs(3), "a hot read took {slowest:?}");
    }
}

async fn repeat(
    seen: Arc<Seen>,
    count: impl Fn(&Seen) -> &AtomicU64,
    request: impl Fn(i64) -> reqwest::RequestBuilder,
) {
    let mut turn = 0;
    while !seen.stop.load(Ordering::SeqCst) {
        let started = Instant::now();
        let outcome = match request(turn).send().await {
            Ok(answer) if answer.status() == 200 => answer.bytes().await.map(drop).map_err(|error| error.to_string()),
            Ok(answer) => Err(format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default())),
            Err(error) => Err(format!("{error:?}")),
        };
        if let Err(failure) = outcome {
            seen.failures.lock().unwrap().push(format!("turn {turn} after {:?}: {failure}", started.elapsed()));
        }
        if std::ptr::eq(count(&seen), &raw const seen.hot) {
            let mut slowest = seen.slowest_hot.lock().unwrap();
            *slowest = slowest.max(started.elapsed());
        }
        count(&seen).fetch_add(1, Ordering::SeqCst);
        turn += 1;
        // A steady load, not a flood: other tests run beside this one.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
