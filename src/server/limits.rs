//! What every request must pass before its handler: phase, requests at once, rate per client, token, time.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{Error, Result};
use moka::sync::Cache;
use subtle::ConstantTimeEq;

use super::client::Clients;
use super::problem::{self, Problem};
use super::routes::{Access, Class, Resource};
use crate::config::{HttpConfig, RateLimit};
use crate::lifecycle::{Lifecycle, Phase};
use crate::telemetry::context::RequestContext;

/// Clients remembered at once; beyond that the least active ones start with a full allowance again.
const CLIENTS: u64 = 100_000;

/// The limits of one process, shared by its workers.
pub struct Limits {
    lifecycle: Lifecycle,
    in_flight: AtomicUsize,
    max_in_flight: usize,
    rate: Option<Rate>,
    clients: Clients,
    tokens: Vec<String>,
    timeout: Duration,
}

impl Limits {
    /// Limits as configured.
    pub fn new(config: &HttpConfig, lifecycle: Lifecycle, clients: Clients) -> Self {
        Self {
            lifecycle,
            in_flight: AtomicUsize::new(0),
            max_in_flight: config.max_in_flight,
            rate: config.rate_limit.map(Rate::new),
            clients,
            tokens: config.tokens.clone(),
            timeout: config.request_timeout,
        }
    }

    /// Requests at once; the guard gives the place back.
    fn enter(&self) -> Result<Place<'_>, Problem> {
        let place = Place(&self.in_flight);
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < self.max_in_flight {
            return Ok(place);
        }
        let full = "The service is working on as many requests as it can.";
        Err(Problem::new(problem::OVERLOADED, full).retry_after(Duration::from_secs(1)))
    }

    fn check_rate(&self, request: &ServiceRequest) -> Result<(), Problem> {
        let (Some(rate), Some(client)) = (&self.rate, self.clients.ip(request)) else { return Ok(()) };
        rate.take(client).map_err(|wait| {
            Problem::new(problem::TOO_MANY, "This client has sent too many requests.").retry_after(wait)
        })
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.tokens.is_empty() {
            return Err(Problem::new(problem::WRITES_DISABLED, "Writes are switched off, since API_TOKEN is not set."));
        }
        let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, given) = text.split_once(' ').unwrap_or_default();
        // All tokens are compared, each in constant time, so that time says nothing about any of them.
        let matches =
            self.tokens.iter().fold(0, |any, token| any | token.as_bytes().ct_eq(given.trim().as_bytes()).unwrap_u8());
        if scheme.eq_ignore_ascii_case("bearer") && matches == 1 {
            return Ok(());
        }
        let detail = "A valid token is needed: Authorization: Bearer <API_TOKEN>.";
        Err(Problem::new(problem::UNAUTHORIZED, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }
}

struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Wraps every resource: notes the route and applies the limits of its class.
///
/// # Errors
/// A [`Problem`] when a limit stops the request.
pub async fn admit<B: MessageBody + 'static>(
    limits: Arc<Limits>,
    resource: &'static Resource,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    if let Some(context) = RequestContext::current() {
        // Set once per request, here.
        let _ = context.route.set(resource.path);
    }
    if resource.class == Class::Management {
        return next.call(request).await;
    }
    if limits.lifecycle.phase() == Phase::Starting {
        let starting = "The service is starting and waits for its database.";
        return Err(Problem::new(problem::UNAVAILABLE, starting).retry_after(Duration::from_secs(1)).into());
    }
    limits.check_rate(&request)?;
    let _place = limits.enter()?;
    let method = request.method().as_str();
    if resource.operations.iter().any(|operation| operation.method == method && operation.access == Access::Token) {
        limits.check_token(request.headers())?;
    }
    match tokio::time::timeout(limits.timeout, next.call(request)).await {
        Ok(answer) => answer,
        Err(_) => Err(Problem::new(problem::TIMEOUT, "The request was not done within REQUEST_TIMEOUT.").into()),
    }
}

/// Requests per client by the generic cell rate algorithm: one number per client, no timers.
struct Rate {
    start: Instant,
    /// Between two requests at the allowed rate.
    interval: Duration,
    /// How far a client may be ahead of that rate.
    burst: Duration,
    /// Per client: when its allowance is whole again, in nanoseconds after `start`.
    clients: Cache<IpAddr, Arc<AtomicU64>>,
}

impl Rate {
    fn new(limit: RateLimit) -> Self {
        let clients = Cache::builder().max_capacity(CLIENTS).time_to_idle(limit.per * 2).build();
        Self { start: Instant::now(), interval: limit.per / limit.requests.get(), burst: limit.per, clients }
    }

    fn take(&self, client: IpAddr) -> Result<(), Duration> {
        let whole = self.clients.get_with(network(client), Arc::default);
        let now = nanos(self.start.elapsed());
        let mut wait = Duration::ZERO;
        let step = |at: u64| {
            let next = at.max(now) + nanos(self.interval);
            wait = Duration::from_nanos(next.saturating_sub(now + nanos(self.burst)));
            wait.is_zero().then_some(next)
        };
        whole.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).map(drop).map_err(|_| wait)
    }
}

/// An IPv6 client has a whole /64 to choose addresses from, so that is what counts as one client.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn a_client_gets_its_allowance_and_then_waits() {
        let rate = Rate::new(RateLimit { requests: NonZeroU32::new(5).unwrap(), per: Duration::from_secs(3600) });
        let client = "192.0.2.1".parse().unwrap();
        assert_eq!((0..20).filter(|_| rate.take(client).is_ok()).count(), 5);
        let wait = rate.take(client).unwrap_err();
        assert!(wait > Duration::from_secs(600) && wait <= Duration::from_secs(720), "{wait:?}");
        assert!(rate.take("192.0.2.2".parse().unwrap()).is_ok(), "another client has its own");
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let [a, b] = ["2001:db8::1", "2001:db8::ffff:2"].map(|text| network(text.parse().unwrap()));
        assert_eq!(a, b);
        assert_ne!(a, network("2001:db8:0:1::1".parse().unwrap()));
    }
}
