//! The shared tier as the cache uses it: each operation has a span, is measured, and teaches whether the tier can be used.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::metrics::CacheMetrics;
use crate::part::Part;
use crate::remote::{Fill, Filled, LEASE, Place, Token};
use crate::{Remote, RemoteError};

pub(crate) struct Shared {
    pub(crate) remote: Arc<dyn Remote>,
    pub(crate) part: Part,
    /// Only told of: what the bus doesn't say, the log does.
    pub(crate) bus: Part,
    pub(crate) metrics: CacheMetrics,
}

impl Shared {
    /// Does one operation, for a kind of thing if it is about one.
    pub(crate) async fn ask<T>(
        &self,
        op: &'static str,
        cache: Option<&'static str>,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let begun = Instant::now();
        let outcome = traced(op, cache, work).await;
        self.metrics.operation(op, begun.elapsed(), outcome.is_ok());
        // Something of another type is an answer, if not the one that was hoped for.
        if !matches!(outcome, Err(RemoteError::WrongType)) {
            self.part.used_for(op, &outcome);
        }
        outcome
    }
}

/// Does an operation in a client's span.
async fn traced<T>(
    op: &'static str,
    cache: Option<&'static str>,
    work: impl Future<Output = Result<T, RemoteError>>,
) -> Result<T, RemoteError> {
    // Names of spans are fixed where they are made.
    macro_rules! span {
        ($name:literal) => {
            tracing::info_span!(target: "tiered_cache", $name, otel.kind = "client", otel.status_code = Empty,
                db.system.name = "redis", db.operation.name = op, error.type = Empty, cache)
        };
    }
    let span = match op {
        "fill" => span!("cache_set"),
        "invalidate" => span!("cache_invalidate"),
        _ => span!("cache_get"),
    };
    let outcome = work.instrument(span.clone()).await;
    if let Err(error) = &outcome {
        let kind = if matches!(error, RemoteError::Timeout) { "timeout" } else { "_OTHER" };
        span.record("otel.status_code", "ERROR").record("error.type", kind);
    }
    outcome
}

/// The right to load a value and to store it.
#[derive(Clone, Copy)]
pub(crate) struct Lease<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) place: Place,
    pub(crate) token: Token,
}

impl Lease<'_> {
    /// Keeps it alive; never ends.
    pub(crate) async fn renew(self) {
        loop {
            tokio::time::sleep(LEASE / 4).await;
            // Lost or not: the fill finds out. The load goes on for those who wait.
            if matches!(self.shared.remote.renew(self.place, self.token).await, Ok(false)) {
                return std::future::pending().await;
            }
        }
    }

    /// Stores a value, which ends the lease.
    pub(crate) async fn fill(self, cache: &'static str, fill: Fill) -> Result<Filled, RemoteError> {
        let work = self.shared.remote.fill(self.place, self.token, fill);
        let filled = self.shared.ask("fill", Some(cache), work).await;
        let result = match filled {
            Ok(Filled::Stored { .. }) => "stored",
            Ok(Filled::Lost) => "lost",
            Ok(Filled::Older) => "older",
            Err(_) => "error",
        };
        self.shared.metrics.fill(cache, "l2", result);
        filled
    }

    /// The next replica needn't wait until the lease runs out. If this fails, it does.
    pub(crate) async fn release(self) {
        drop(self.shared.remote.release(self.place, self.token).await);
    }
}
