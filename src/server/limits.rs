//! What every request must pass before its handler: phase, requests at once, rate per client, token, time.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{Error, Result};
use moka::sync::Cache;
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::client::Clients;
use super::problem::{self, Problem};
use super::routes::{Access, Class, Resource};
use crate::config::{HttpConfig, RateLimit};
use crate::lifecycle::{Lifecycle, Phase};
use telemetry::context::RequestContext;

/// Clients remembered at once; beyond that the least active ones start with a full allowance again.
const CLIENTS: u64 = 100_000;

pub struct Limits {
    lifecycle: Lifecycle,
    places: Semaphore,
    rate: Option<Rate>,
    pub clients: Clients,
    tokens: Vec<String>,
    timeout: Duration,
}

impl Limits {
    pub fn new(config: &HttpConfig, lifecycle: Lifecycle) -> Self {
        Self {
            lifecycle,
            places: Semaphore::new(config.max_in_flight.min(Semaphore::MAX_PERMITS)),
            rate: config.rate_limit.map(Rate::new),
            clients: Clients::new(&config.trusted_proxies),
            tokens: config.tokens.clone(),
            timeout: config.request_timeout,
        }
    }

    fn enter(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let full = "The service is working on as many requests as it can.";
        let overloaded = |_| Problem::new(problem::OVERLOADED, full).retry_after(Duration::from_secs(1));
        self.places.try_acquire().map_err(overloaded)
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
        let equal = |token: &String| token.as_bytes().ct_eq(given.trim().as_bytes());
        let matches = self.tokens.iter().fold(Choice::from(0), |any, token| any | equal(token));
        if scheme.eq_ignore_ascii_case("bearer") && bool::from(matches) {
            return Ok(());
        }
        let problem =
            Problem::new(problem::UNAUTHORIZED, "A valid token is needed: Authorization: Bearer <API_TOKEN>.");
        Err(problem.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }
}

/// Wraps every resource: notes the route and applies the limits of its class.
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
    let method = request.method().as_str();
    let token =
        resource.operations.iter().any(|operation| operation.method == method && operation.access == Access::Token);
    let public = resource.class == Class::Public;
    if !public && !token {
        return next.call(request).await;
    }
    if public && limits.lifecycle.phase() == Phase::Starting {
        let starting = "The service is starting and waits for its database.";
        return Err(Problem::new(problem::UNAVAILABLE, starting).retry_after(Duration::from_secs(1)).into());
    }
    // Before the token is looked at, so that nobody can try them at will.
    limits.check_rate(&request)?;
    // An operator gets in however many requests there are.
    let _place = public.then(|| limits.enter()).transpose()?;
    if token {
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
pub fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
