//! How a connection to Postgres is made, pooled or not.

use std::time::Duration;

use deadpool_postgres::{Hook, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::DatabaseConfig;

/// A peer that doesn't acknowledge for this long is gone; without it a vanished server holds a write for 15 minutes.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

fn settings(config: &DatabaseConfig) -> tokio_postgres::Config {
    let mut settings = config.url.clone();
    let limit = config.command_timeout.as_millis();
    let given = settings.get_options().unwrap_or_default();
    let options = format!("{given} -c statement_timeout={limit} -c idle_in_transaction_session_timeout={limit}");
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
fn tls() -> MakeRustlsConnect {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    MakeRustlsConnect::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

pub(super) fn pool(config: &DatabaseConfig) -> anyhow::Result<Pool> {
    let manager =
        Manager::from_config(settings(config), tls(), ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let pool = Pool::builder(manager)
        .max_size(config.pool_max)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(config.acquire_timeout))
        .create_timeout(Some(config.acquire_timeout))
        .recycle_timeout(Some(config.acquire_timeout))
        .post_create(Hook::sync_fn(|_, _| {
            tracing::debug!("connected to the database");
            Ok(())
        }))
        .build()?;
    Ok(pool)
}

/// One connection outside of the pool, for migrations and health checks; its driver ends with the client.
pub async fn connect(config: &DatabaseConfig) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = settings(config).connect(tls()).await?;
    tokio::spawn(async move {
        // The client sees the same error.
        let _ = connection.await;
    });
    Ok(client)
}
