//! Who a request is: trace, span and request ids, taken from the caller or drawn here.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use actix_web::http::header::HeaderMap;
use rand::RngExt;

use crate::config::Sampler;

tokio::task_local! {
    static CURRENT: Arc<RequestContext>;
}

/// Ids and facts of one request, known to everything that runs for it.
#[derive(Debug)]
pub struct RequestContext {
    pub trace_id: u128,
    /// Id of the root span; drawn also when nothing is recorded, so that log lines can be told apart.
    pub span_id: u64,
    /// The caller's `X-Request-Id` when it is well formed, else a drawn one.
    pub request_id: String,
    pub sampled: bool,
    pub route: OnceLock<&'static str>,
    /// What the cache said, once it was asked.
    pub cache: OnceLock<&'static str>,
}

impl RequestContext {
    /// The context of the request that the current task works for.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs a future for this request; detached tasks use it, too, to keep their log lines correlated.
    pub fn scope<F: Future>(self: Arc<Self>, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }
}

/// A `traceparent` header (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace it belongs to.
    pub trace_id: u128,
    /// The caller's span.
    pub span_id: u64,
    /// The caller records it.
    pub sampled: bool,
}

impl Parent {
    /// Reads a header; anything malformed counts as none, as the recommendation says.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get("traceparent")?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let further = parts.next().is_some();
        if version == "ff" || (version == "00" && further) {
            return None;
        }
        let [_, flags] = [hex(version, 2)?, hex(flags, 2)?];
        let (trace_id, span_id) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?);
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if valid { u128::from_str_radix(text, 16).ok() } else { None }
}

impl Sampler {
    /// The head sample, drawn before any span exists, since a span that is dropped later costs a microsecond.
    pub fn draw(&self, parent: Option<Parent>, trace_id: u128) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.sampled,
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
    fn within_ratio(&self, trace_id: u128) -> bool {
        let bound = (self.ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        ((trace_id as u64) >> 1) < bound
    }
}

/// The caller's request id when it can't harm a log or a header, else a drawn one.
pub fn request_id(headers: &HeaderMap) -> String {
    let well_formed = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok()).filter(well_formed);
    given.map_or_else(|| Hex(rand::rng().random::<u128>(), 32).to_string(), str::to_owned)
}

/// A number as lower-case hexadecimal of a fixed width.
pub struct Hex(pub u128, pub usize);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.0, width = self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_traceparent_is_taken() {
        let parent = Parent::parse(VALID).unwrap();
        assert_eq!(parent.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert!(parent.sampled);
        assert!(!Parent::parse(&VALID.replace("-01", "-00")).unwrap().sampled);
    }

    #[test]
    fn a_malformed_traceparent_counts_as_none() {
        for bad in ["", "00", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &format!("{VALID}-x")] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
        assert_eq!(Parent::parse(&VALID.to_uppercase()), None);
        assert_eq!(Parent::parse("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None);
        assert!(
            Parent::parse(&format!("{}-x", VALID.replacen("00", "cc", 1))).is_some(),
            "later versions may be longer"
        );
    }

    #[test]
    fn the_ratio_decides_only_without_a_parent() {
        let sampler = Sampler { parent_based: true, ratio: 0.0 };
        assert!(sampler.draw(Parent::parse(VALID), 1));
        assert!(!sampler.draw(None, 1));
        assert!(Sampler { parent_based: false, ratio: 1.0 }.draw(None, u128::MAX));
        let half = Sampler { parent_based: false, ratio: 0.5 };
        let drawn = (0..10_000).filter(|_| half.draw(None, rand::rng().random())).count();
        assert!((4_500..5_500).contains(&drawn), "{drawn}");
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(text in ".*") {
            let _ = Parent::parse(&text);
        }
    }
}
