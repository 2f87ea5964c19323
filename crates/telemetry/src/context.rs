//! Who a request is: trace, span and request ids, taken from the caller or drawn here.

use std::sync::{Arc, OnceLock};

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use rand::RngExt;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::settings::Sampler;

/// The name of a header.
pub(crate) const BAGGAGE: &str = "baggage";
/// Longer ones needn't be passed on (W3C Trace Context, section 3.3.1.5).
const TRACESTATE: usize = 512;

tokio::task_local! {
    static CURRENT: Arc<RequestContext>;
}

/// Ids and facts of one request, known to everything that runs for it.
#[derive(Debug)]
pub struct RequestContext {
    /// The caller's, else drawn.
    pub trace_id: TraceId,
    /// Id of the root span; drawn also when nothing is recorded, so that log lines can be told apart.
    pub span_id: SpanId,
    /// The caller's `X-Request-Id` when it is well formed, else a drawn one.
    pub request_id: String,
    /// Whether spans are recorded.
    pub sampled: bool,
    /// The caller's span.
    pub parent: Option<SpanContext>,
    /// What the caller gave along for everyone further on, see [`baggage`].
    pub baggage: Option<String>,
    /// The template that matched, once it is known.
    pub route: OnceLock<&'static str>,
    /// What the cache said, once it was asked.
    pub cache: OnceLock<&'static str>,
}

impl RequestContext {
    /// The context of the request that the current task works for.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// The headers of a call to another service for this request: W3C `traceparent`, `tracestate` and `baggage`.
    pub fn outgoing(&self) -> impl Iterator<Item = (&'static str, String)> {
        let recorded = Span::current().context().span().span_context().clone();
        let span_id = if recorded.is_valid() { recorded.span_id() } else { self.span_id };
        let parent = format!("00-{}-{span_id}-{:02x}", self.trace_id, u8::from(self.sampled));
        let state = self.parent.as_ref().map(|parent| parent.trace_state().header());
        let state = state.filter(|state| (1..=TRACESTATE).contains(&state.len()));
        let headers = [("traceparent", Some(parent)), ("tracestate", state), (BAGGAGE, self.baggage.clone())];
        headers.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    /// Runs a future for this request; detached tasks use it, too, to keep their log lines correlated.
    pub fn scope<F: Future>(self: Arc<Self>, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }
}

impl Sampler {
    /// The head sample, drawn before any span exists, since a span that is dropped later costs a microsecond.
    pub fn draw(&self, parent: Option<&SpanContext>, trace_id: TraceId) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.is_sampled(),
            _ => self.within_ratio(trace_id),
        }
    }

    /// The same comparison as the SDK's TraceIdRatioBased, so that services agree on a trace.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the ratio is within 0 and 1"
    )]
    fn within_ratio(&self, trace_id: TraceId) -> bool {
        let bound = (self.ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        ((u128::from_be_bytes(trace_id.to_bytes()) as u64) >> 1) < bound
    }
}

/// The caller's baggage, which nobody here reads: passed on whole or, beyond the limits of W3C Baggage, not at all.
pub fn baggage(header: Option<&str>) -> Option<String> {
    let (members, bytes) = (64, 8192);
    header.filter(|text| (1..=bytes).contains(&text.len()) && text.split(',').count() <= members).map(str::to_owned)
}

/// The caller's request id when it can't harm a log or a header, else a drawn one.
pub fn request_id(given: Option<&str>) -> String {
    let well_formed = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    given.filter(well_formed).map_or_else(random_id, str::to_owned)
}

/// 128 random bits, as ids are written.
pub fn random_id() -> String {
    TraceId::from(rand::rng().random::<u128>()).to_string()
}
