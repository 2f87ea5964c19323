//! The life of the process: `Starting → Ready → Draining → Stopping → Stopped`, and the background tasks that live in it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where the process is in its life; only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waits for what it needs; takes no traffic.
    Starting,
    /// Takes traffic.
    Ready,
    /// Was told to stop: says so to probes, still takes requests.
    Draining,
    /// Takes no new connection; finishes what is under way.
    Stopping,
    /// All done but telemetry.
    Stopped,
}

/// Shared by everything that must know the phase or runs in the background; cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    tasks: TaskTracker,
    /// Cancelled when background tasks are to end.
    stop: CancellationToken,
    /// Cancelled when one of them ended by itself.
    died: CancellationToken,
    failed: Arc<AtomicBool>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Starting)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            died: CancellationToken::new(),
            failed: Arc::default(),
        }
    }
}

impl Lifecycle {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on; going back is not possible, so that a late "ready" can't undo a stop.
    pub fn advance(&self, to: Phase) {
        let moved = self.phase.send_if_modified(|phase| {
            let forward = to > *phase;
            if forward {
                *phase = to;
            }
            forward
        });
        if moved {
            tracing::info!(phase = ?to, "lifecycle");
        }
    }

    /// Runs a task until the process stops. One that ends before, or panics, stops the process with exit code 1:
    /// better a restart than a process that is half dead.
    pub fn background(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (stop, died, failed) = (self.stop.clone(), self.died.clone(), Arc::clone(&self.failed));
        let task = tokio::spawn(async move { stop.run_until_cancelled(task).await.is_none() });
        self.tasks.spawn(async move {
            if !matches!(task.await, Ok(true)) {
                tracing::error!(task = name, "a background task ended; the process stops");
                failed.store(true, Ordering::Relaxed);
                died.cancel();
            }
        });
    }

    /// Whether a background task ended by itself.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub async fn died(&self) {
        self.died.cancelled().await;
    }

    /// Ends the background tasks, at most until `deadline`.
    pub async fn stop_background(&self, deadline: Instant) {
        self.stop.cancel();
        self.tasks.close();
        if timeout_at(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!("background tasks did not end in time");
        }
    }
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for `future`; a further signal gives up on it. Returns whether there was one.
    pub async fn interrupts(&mut self, future: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = future => false,
            () = self.next() => true,
        }
    }
}

/// The moments of a stop, all counted from the signal.
#[derive(Clone, Copy, Debug)]
pub struct StopPlan {
    /// Until then requests are accepted.
    pub drain_until: Instant,
    /// Until then everything but telemetry is stopped.
    pub deadline: Instant,
}

impl StopPlan {
    pub fn from_now(drain_delay: Duration, shutdown_timeout: Duration) -> Self {
        let now = Instant::now();
        Self { drain_until: now + drain_delay, deadline: now + shutdown_timeout }
    }
}
