//! The life of the process: `Starting → Ready → Draining → Stopping → Stopped`, and the background tasks that live in it.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where the process is in its life; only ever moves forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waits for what it needs; takes no traffic.
    #[default]
    Starting,
    Ready,
    /// Was told to stop: says so to probes, still takes requests.
    Draining,
    /// Takes no new connection; finishes what is under way.
    Stopping,
    /// All done but telemetry.
    Stopped,
}

/// Shared by everything that must know the phase or runs in the background; cheap to clone.
#[derive(Clone, Default)]
pub struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    tasks: TaskTracker,
    /// Cancelled when background tasks are to end.
    stop: CancellationToken,
    /// Cancelled when one of them ended by itself.
    died: CancellationToken,
}

impl Lifecycle {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on; going back is not possible, so that a late "ready" can't undo a stop.
    pub fn advance(&self, to: Phase) {
        let moved = self.phase.send_if_modified(|phase| {
            let before = std::mem::replace(phase, to.max(*phase));
            *phase != before
        });
        if moved {
            tracing::info!(name: "lifecycle.phase", phase = ?to, "lifecycle");
        }
    }

    /// Runs a task until the process stops. One that ends before, or panics, stops the process with exit code 1:
    /// better a restart than a process that is half dead.
    pub fn background(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(self.needed(name, async move { stop.run_until_cancelled(task).await.is_none() }));
    }

    /// Runs a task that outlives the others, and is told apart from them when to end.
    pub fn foreground(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.needed(name, async {
            task.await;
            false
        }));
    }

    /// The process doesn't run on without this task, which returns whether it was told to end.
    fn needed<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + use<F>
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let (died, life, task) = (self.died.clone(), self.clone(), tokio::spawn(task));
        async move {
            if !matches!(task.await, Ok(true)) && life.phase() < Phase::Stopping {
                tracing::error!(name: "lifecycle.task_died", task = name, "a background task ended; the process stops");
                died.cancel();
            }
        }
    }

    /// Whether a background task ended by itself.
    pub fn failed(&self) -> bool {
        self.died.is_cancelled()
    }

    /// Completes when a background task has ended by itself.
    pub async fn died(&self) {
        self.died.cancelled().await;
    }

    pub async fn stop_background(&self, deadline: Instant) {
        self.stop.cancel();
        self.tasks.close();
        if timeout_at(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!(name: "lifecycle.tasks_cut", "background tasks did not end in time");
        }
    }
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on the process doesn't die of them.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
