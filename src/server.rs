//! Listening and the order of life: build, then run until told to stop.

pub mod client;
pub mod limits;
pub mod observe;
pub mod problem;
pub mod routes;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::{HttpServer, web};
use anyhow::Context;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use self::limits::Limits;
use self::observe::{Observer, observe};
use self::routes::Class;
use crate::app::{App, Refused};
use crate::lifecycle::{Phase, Signals};

/// Longer than balancers keep idle connections, so that it is they who close them.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const BACKLOG: u32 = 4096;
/// A stop without grace takes milliseconds. While one with grace is under way the framework hears of no other; then
/// the end of the process closes what is left.
const STOP_NOW: Duration = Duration::from_millis(200);
/// Requests whose work was cut off get this long to be answered and logged.
const CUT_OFF: Duration = Duration::from_millis(200);

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
    /// A background task died, or something did not end in time.
    Failed,
    /// A second signal came.
    Hurried,
    /// The configuration doesn't fit the database's schema.
    Refused,
}

impl Service {
    /// Binds the ports. Nothing is answered before [`Service::run`].
    pub fn build(app: App) -> anyhow::Result<Self> {
        let app = web::Data::new(app);
        let http = &app.config.http;
        let limits = Arc::new(Limits::new(http, app.lifecycle.clone()));
        let (public, management): (&[Class], _) = match http.management_port {
            None => (&[Class::Public, Class::Management], None),
            Some(port) => (&[Class::Public], Some(listen(&app, &limits, port, 1, &[Class::Management])?.0)),
        };
        let (api, address) = listen(&app, &limits, http.port, http.workers, public)?;
        Ok(Self { api, management, address, app })
    }

    /// Serves until a signal, a refusal by the start, or the death of a background task.
    pub async fn run(self, mut signals: Signals) -> Outcome {
        let Self { app, api, management, address } = self;
        let servers = Handles { api: api.handle(), management: management.as_ref().map(Server::handle) };
        app.lifecycle.background("server", async { drop(api.await) });
        if let Some(management) = management {
            app.lifecycle.foreground("management server", async { drop(management.await) });
        }
        tracing::info!(name: "server.listening", %address, port = address.port(), "listening");

        let asked = tokio::select! {
            started = app.start() => started.err().map(|Refused(why)| {
                tracing::error!(name: "start.refused", "{why}");
                Outcome::Refused
            }),
            () = signals.next() => Some(Outcome::Clean),
            () = app.lifecycle.died() => Some(Outcome::Failed),
        };
        if let Some(outcome) = asked {
            // Never ready, so there is no traffic to drain.
            app.lifecycle.advance(Phase::Stopping);
            servers.stop_now().await;
            return outcome;
        }
        app.lifecycle.advance(Phase::Ready);
        tokio::select! {
            () = signals.next() => {}
            () = app.lifecycle.died() => {}
        }
        tokio::select! {
            finished = drain(&app, &servers) => {
                app.lifecycle.advance(Phase::Stopped);
                if finished && !app.lifecycle.failed() { Outcome::Clean } else { Outcome::Failed }
            }
            () = signals.next() => {
                tracing::warn!(name: "server.hurried", "a second signal: stopping at once");
                app.lifecycle.advance(Phase::Stopping);
                servers.stop_now().await;
                Outcome::Hurried
            }
        }
    }
}

struct Handles {
    api: ServerHandle,
    management: Option<ServerHandle>,
}

impl Handles {
    async fn stop_now(&self) {
        let stop = async {
            self.api.stop(false).await;
            if let Some(management) = &self.management {
                management.stop(false).await;
            }
        };
        let _ = timeout(STOP_NOW, stop).await;
    }
}

/// The ordered stop, its times counted from now: say so, keep accepting, finish, then the background. Returns whether
/// every request was finished.
async fn drain(app: &App, servers: &Handles) -> bool {
    let process = &app.config.process;
    let now = Instant::now();
    let deadline = now + process.shutdown_timeout;
    app.lifecycle.advance(Phase::Draining);
    sleep_until(now + process.drain_delay).await;
    app.lifecycle.advance(Phase::Stopping);
    let finished = timeout_at(deadline, servers.api.stop(true)).await.is_ok();
    if !finished {
        tracing::warn!(name: "server.requests_cut", "requests did not end in time");
    }
    app.stop(deadline).await;
    if !finished {
        // The end of the cache's loads lets them answer; only the gauge tells when, since the server looks once a second.
        let answered = async {
            while app.metrics.in_flight.get() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(CUT_OFF, answered).await;
    }
    // Last of the servers, so that probes were answered throughout.
    if let Some(management) = &servers.management {
        let _ = timeout_at(deadline.max(Instant::now() + Duration::from_millis(100)), management.stop(true)).await;
    }
    finished
}

fn listen(
    app: &web::Data<App>,
    limits: &Arc<Limits>,
    port: u16,
    workers: usize,
    classes: &'static [Class],
) -> anyhow::Result<(Server, SocketAddr)> {
    let http = &app.config.http;
    let wanted = SocketAddr::new(http.bind, port);
    let (app, limits, body_limit) = (app.clone(), Arc::clone(limits), http.body_limit);
    let page = web::Data::new(crate::api::docs::page_config());
    let server = HttpServer::new(move || {
        let observer = Rc::new(Observer::new(&app, limits.clients.clone()));
        actix_web::App::new()
            .app_data(app.clone())
            .app_data(page.clone())
            .app_data(web::PayloadConfig::new(body_limit))
            .configure(|config| routes::mount(config, classes, &limits))
            .default_service(routes::unmatched(&limits))
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
