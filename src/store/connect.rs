//! How a connection to Postgres is made, pooled or not.

use std::future::poll_fn;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::{Connect, Hook, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::future::BoxFuture;
use rustls::RootCertStore;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, Error};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use crate::config::DatabaseConfig;

/// A peer that doesn't acknowledge for this long is gone; without it a vanished server holds a write for 15 minutes.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

pub fn settings(config: &DatabaseConfig) -> tokio_postgres::Config {
    let mut settings = config.url.clone();
    let limit = config.command_timeout.as_millis();
    let given = settings.get_options().unwrap_or_default();
    let options = format!("{given} -c statement_timeout={limit} -c idle_in_transaction_session_timeout={limit}");
    // TLS is for URLs that ask for it: `prefer`, which holds unasked, fails where the server's certificate isn't known.
    if settings.get_ssl_mode() == SslMode::Prefer {
        settings.ssl_mode(SslMode::Disable);
    }
    settings
        .application_name(&config.application_name)
        .options(options.trim())
        .connect_timeout(config.acquire_timeout)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(600))
        .keepalives_interval(Duration::from_secs(30))
        .keepalives_retries(3);
    settings
}

/// TLS, checked against the system's authorities (`SSL_CERT_FILE` adds others).
pub(super) fn tls(config: &DatabaseConfig) -> MakeRustlsConnect {
    // Read once: every health check after a loss connects, and hundreds of files would hold up its thread.
    static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    let roots = if config.url.get_ssl_mode() == SslMode::Require {
        Arc::clone(&ROOTS)
    } else {
        Arc::new(RootCertStore::empty())
    };
    MakeRustlsConnect::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Drives connections on one runtime, whoever needs them first: those of a worker would end with it, while a write
/// that the worker has begun goes on.
struct Driven {
    tls: MakeRustlsConnect,
    runtime: Handle,
}

impl Connect for Driven {
    fn connect(&self, config: &tokio_postgres::Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let (config, tls) = (config.clone(), self.tls.clone());
        let connecting = self.runtime.spawn(async move {
            let (client, connection) = config.connect(tls).await?;
            // The client sees the same error.
            Ok((client, tokio::spawn(async move { drop(connection.await) })))
        });
        let connecting = AbortOnDropHandle::new(connecting);
        Box::pin(async move {
            match connecting.await {
                Ok(connected) => connected,
                // The runtime ends.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

pub(super) fn pool(config: &DatabaseConfig, tls: MakeRustlsConnect, runtime: Handle) -> anyhow::Result<Pool> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_connect(settings(config), Driven { tls, runtime }, recycling);
    let pool = Pool::builder(manager)
        .max_size(config.pool_max)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(config.acquire_timeout))
        .create_timeout(Some(config.acquire_timeout))
        .recycle_timeout(Some(config.acquire_timeout))
        .post_create(Hook::sync_fn(|_, _| {
            tracing::debug!(name: "database.connected", "connected to the database");
            Ok(())
        }))
        .build()?;
    Ok(pool)
}

/// One connection outside of the pool, for migrations and health checks, and what drives it. Dropping that ends the
/// connection at once; the client's end alone would leave it open for as long as a query waits for its answer.
/// It is there in time or fails: the driver's own bound is for TCP alone.
pub async fn connect(config: &DatabaseConfig) -> anyhow::Result<(Client, AbortOnDropHandle<()>)> {
    let connected = tokio::time::timeout(config.acquire_timeout, settings(config).connect(tls(config))).await;
    let (client, connection) = connected.context("no answer in time")??;
    // The client sees the same error.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((client, AbortOnDropHandle::new(driver)))
}

/// One connection outside of the pool, whose notifications, and whose end, wake `woken`.
pub(super) async fn connect_listening(
    config: &DatabaseConfig,
    woken: Arc<Notify>,
) -> Result<(Client, AbortOnDropHandle<()>), Error> {
    let (client, mut connection) = settings(config).connect(tls(config)).await?;
    let driver = tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                woken.notify_one();
            }
        }
        woken.notify_one();
    });
    Ok((client, AbortOnDropHandle::new(driver)))
}
