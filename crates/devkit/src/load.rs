//! Load on an HTTP server that counts every way in which a request can fail, and repeats none.

mod client;
mod report;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use client::Client;
pub use report::{Failure, Report};

/// One request.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    /// Sent as JSON.
    pub body: String,
    /// The pause in the middle of the body.
    pub slow_body: Duration,
    /// Bearer token.
    pub token: Option<String>,
}

/// What is sent, and how.
#[derive(Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Traffic {
    pub to: SocketAddr,
    /// Clients that keep their connection as long as the server lets them.
    pub kept: usize,
    /// Clients that open a connection for each request.
    pub fresh: usize,
    /// How long each client waits between two requests.
    pub pause: Duration,
    /// The longest wait for one answer.
    pub limit: Duration,
    /// Requests at most; then the clients end.
    pub count: u64,
    /// One request of so many says in `traceparent` that it is sampled; 0: none.
    pub sampled: u64,
    /// Makes the request of this number.
    pub asks: Arc<dyn Fn(u64) -> Ask + Send + Sync>,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    stop: AtomicBool,
    asked: AtomicU64,
    report: Mutex<Report>,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Starts all clients, each in a task.
    pub fn start(traffic: &Traffic) -> Self {
        let (stop, asked, report) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { start: Instant::now(), stop, asked, report });
        let work = |number| {
            let client = Client::new(traffic.to, number < traffic.kept);
            work(traffic.clone(), client, Arc::clone(&shared))
        };
        Self { clients: (0..traffic.kept + traffic.fresh).map(work).collect(), shared }
    }

    /// What came of the requests so far.
    pub fn report(&self) -> Report {
        Report { took: self.shared.start.elapsed(), ..self.shared.report().clone() }
    }

    /// Requests answered well so far.
    pub fn answered(&self) -> u64 {
        self.shared.report().good.values().sum()
    }

    /// Lets requests under way end, and tells what came of all.
    pub async fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.finished().await
    }

    /// Waits until all requests that were ordered are done.
    pub async fn finished(mut self) -> Report {
        while self.clients.join_next().await.is_some() {}
        self.report()
    }
}

async fn work(traffic: Traffic, mut client: Client, shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.asked.fetch_add(1, Ordering::Relaxed);
        if number >= traffic.count {
            break;
        }
        let sampled = traffic.sampled > 0 && number.is_multiple_of(traffic.sampled);
        let trace: u128 = rand::random_range(1..=u128::MAX);
        let parent = format!("00-{trace:032x}-00f067aa0ba902b7-{:02x}", u8::from(sampled));
        let ask = (traffic.asks)(number);
        let (at, start) = (shared.start.elapsed(), Instant::now());
        let outcome = timeout(traffic.limit, client.send(&ask, &parent)).await.unwrap_or(Err(Failure::Timeout));
        let took = start.elapsed();
        let note = || format!("at {at:.2?}, after {took:.2?} {}", client.said);
        shared.report().add(&ask, outcome, took, sampled.then_some(trace), note);
        tokio::time::sleep(traffic.pause).await;
    }
}
