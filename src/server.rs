//! Listening and the order of life: build, then run until told to stop.

pub mod client;
pub mod limits;
pub mod problem;
pub mod routes;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::{HttpResponse, HttpServer, web};
use anyhow::Context;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::client::Clients;
use self::limits::Limits;
use self::problem::Problem;
use self::routes::Class;
use crate::app::{App, Refused};
use crate::config::HttpConfig;
use crate::lifecycle::{Phase, Signals, StopPlan};
use crate::telemetry::observe::{Observer, observe};

/// Longer than balancers keep idle connections, so that it is they who close them.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// A service that listens but doesn't run yet, so that its port is known.
pub struct Service {
    app: web::Data<App>,
    api: Server,
    management: Option<Server>,
    address: SocketAddr,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Told to stop, and everything ended in order.
    Clean,
    /// A background task died, a second signal came, or something did not end in time.
    Failed,
    /// The configuration doesn't fit the database's schema.
    Refused,
}

impl Service {
    /// Binds the ports. Nothing is answered before [`Service::run`].
    ///
    /// # Errors
    /// When a port can't be had.
    pub fn build(app: App) -> anyhow::Result<Self> {
        let http = app.config.http.clone();
        let app = web::Data::new(app);
        let clients = Clients::new(&http.trusted_proxies);
        let limits = Arc::new(Limits::new(&http, app.lifecycle.clone(), clients.clone()));
        let public: &[Class] =
            if http.management_port.is_some() { &[Class::Public] } else { &[Class::Public, Class::Management] };
        let (api, address) = listen(&app, &http, http.port, http.workers, public, &limits, &clients)?;
        let management = http
            .management_port
            .map(|port| listen(&app, &http, port, 1, &[Class::Management], &limits, &clients))
            .transpose()?
            .map(|(server, _)| server);
        Ok(Self { app, api, management, address })
    }

    /// Serves until a signal, a refusal by the start, or the death of a background task.
    pub async fn run(self, mut signals: Signals) -> Outcome {
        let Self { app, api, management, address } = self;
        let api_handle = api.handle();
        let management_handle = management.as_ref().map(Server::handle);
        tokio::spawn(api);
        management.map(tokio::spawn);
        tracing::info!(%address, port = address.port(), "listening");

        let asked = tokio::select! {
            started = app.start() => match started {
                Ok(()) => None,
                Err(Refused(why)) => {
                    tracing::error!("{why}");
                    Some(Outcome::Refused)
                }
            },
            () = signals.next() => Some(Outcome::Clean),
            () = app.lifecycle.died() => Some(Outcome::Failed),
        };
        if let Some(outcome) = asked {
            // Never ready, so there is no traffic to drain.
            stop_now(&api_handle, management_handle.as_ref()).await;
            return outcome;
        }
        app.lifecycle.advance(Phase::Ready);
        tokio::select! {
            () = signals.next() => {}
            () = app.lifecycle.died() => {}
        }
        let process = &app.config.process;
        let plan = StopPlan::from_now(process.drain_delay, process.shutdown_timeout);
        let hurried = signals.interrupts(drain(&app, &api_handle, management_handle.as_ref(), plan)).await;
        if hurried {
            tracing::warn!("a second signal: stopping at once");
            stop_now(&api_handle, management_handle.as_ref()).await;
        }
        app.lifecycle.advance(Phase::Stopped);
        if hurried || app.lifecycle.failed() { Outcome::Failed } else { Outcome::Clean }
    }
}

/// The ordered stop: say so, keep accepting, finish, then the background.
async fn drain(app: &App, api: &ServerHandle, management: Option<&ServerHandle>, plan: StopPlan) {
    app.lifecycle.advance(Phase::Draining);
    sleep_until(plan.drain_until).await;
    app.lifecycle.advance(Phase::Stopping);
    if timeout_at(plan.deadline, api.stop(true)).await.is_err() {
        tracing::warn!("requests did not end in time");
        api.stop(false).await;
    }
    app.stop(plan.deadline).await;
    // Last of the servers, so that probes were answered throughout.
    if let Some(management) = management {
        let _ = timeout_at(plan.deadline.max(Instant::now() + Duration::from_millis(100)), management.stop(true)).await;
    }
}

async fn stop_now(api: &ServerHandle, management: Option<&ServerHandle>) {
    api.stop(false).await;
    if let Some(management) = management {
        management.stop(false).await;
    }
}

fn listen(
    app: &web::Data<App>,
    http: &HttpConfig,
    port: u16,
    workers: usize,
    classes: &'static [Class],
    limits: &Arc<Limits>,
    clients: &Clients,
) -> anyhow::Result<(Server, SocketAddr)> {
    let wanted = SocketAddr::new(http.bind, port);
    let (app, limits, clients, body_limit) = (app.clone(), Arc::clone(limits), clients.clone(), http.body_limit);
    let page = web::Data::new(crate::api::docs::page_config());
    let server = HttpServer::new(move || {
        let observer = Rc::new(Observer::new(app.telemetry.clone(), app.lifecycle.clone(), clients.clone()));
        actix_web::App::new()
            .app_data(app.clone())
            .app_data(page.clone())
            .app_data(web::PayloadConfig::new(body_limit))
            .configure(|config| routes::mount(config, classes, &limits))
            .default_service(web::to(async || -> Result<HttpResponse, Problem> {
                Err(Problem::not_found("There is nothing at this path."))
            }))
            .wrap(from_fn(move |request, next| observe(Rc::clone(&observer), request, next)))
    })
    .workers(workers)
    .backlog(BACKLOG)
    .keep_alive(KEEP_ALIVE)
    .disable_signals()
    // How long is for `drain` to say; the framework's own bound only has to be longer.
    .shutdown_timeout(3600)
    .bind(wanted)
    .with_context(|| format!("can't listen on {wanted}"))?;
    let address = server.addrs().first().copied().context("the listener has no address")?;
    Ok((server.run(), address))
}
