//! Load on an HTTP server that counts every way in which a request can fail, and repeats none.

mod client;
mod report;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

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
    clients: JoinSet<Report>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    stop: AtomicBool,
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Load {
    /// Starts all clients, each in a task.
    pub fn start(traffic: &Traffic) -> Self {
        let (stop, asked, answered) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { start: Instant::now(), stop, asked, answered });
        let work = |number| {
            let client = Client::new(traffic.to, number < traffic.kept, traffic.limit);
            work(traffic.clone(), client, Arc::clone(&shared))
        };
        Self { clients: (0..traffic.kept + traffic.fresh).map(work).collect(), shared }
    }

    /// Requests answered well so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Lets requests under way end, and tells what came of all.
    pub async fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.finished().await
    }

    /// Waits until all requests that were ordered are done.
    pub async fn finished(self) -> Report {
        let report = self.clients.join_all().await.into_iter().fold(Report::default(), Report::plus);
        Report { took: self.shared.start.elapsed(), ..report }
    }
}

async fn work(traffic: Traffic, mut client: Client, shared: Arc<Shared>) -> Report {
    let mut report = Report::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.asked.fetch_add(1, Ordering::Relaxed);
        if number >= traffic.count {
            break;
        }
        let sampled = traffic.sampled > 0 && number.is_multiple_of(traffic.sampled);
        let trace: u128 = rand::random_range(1..=u128::MAX);
        let ask = (traffic.asks)(number);
        let (at, start) = (shared.start.elapsed(), Instant::now());
        let outcome = client.send(&ask, &format!("00-{trace:032x}-00f067aa0ba902b7-{:02x}", u8::from(sampled))).await;
        shared.answered.fetch_add(u64::from(outcome.is_ok()), Ordering::Relaxed);
        report.add(&ask, outcome, at, start.elapsed(), sampled.then_some(trace));
        tokio::time::sleep(traffic.pause).await;
    }
    report
}
