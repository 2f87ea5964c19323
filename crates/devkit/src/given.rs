//! Servers given by a URL: only on this machine, unless `--yes` says otherwise.

use std::net::IpAddr;

use anyhow::{Context, bail};
use tokio_postgres::config::Host;

/// Refuses a Postgres URL that isn't loopback, so that nobody's database is migrated or filled by accident.
pub(crate) fn check_postgres(url: &str, yes: bool) -> anyhow::Result<()> {
    let config: tokio_postgres::Config = url.parse().context("DATABASE_URL isn't a Postgres URL")?;
    let names = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => loopback(name),
        Host::Unix(_) => true,
    });
    // hostaddr wins over host, so both have to be local.
    let local = names && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
    refuse("DATABASE_URL", local, yes)
}

/// The same for Redis.
pub(crate) fn check_redis(url: &str, yes: bool) -> anyhow::Result<()> {
    use redis::{ConnectionAddr, IntoConnectionInfo};
    let info = url.into_connection_info().context("REDIS_URL isn't a Redis URL")?;
    let local = match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => loopback(host),
        ConnectionAddr::Unix(_) => true,
        _ => false,
    };
    refuse("REDIS_URL", local, yes)
}

fn loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn refuse(name: &str, local: bool, yes: bool) -> anyhow::Result<()> {
    if !local && !yes {
        bail!("{name} points to another machine: unset it to get a private server, or pass --yes to use it as it is");
    }
    Ok(())
}

/// The URL with another database in it, and with another port of this machine if one is named.
pub(crate) fn with_database(url: &str, database: &str, port: Option<u16>) -> anyhow::Result<String> {
    let (scheme, rest) = url.split_once("://").context("DATABASE_URL isn't of the form postgres://…")?;
    let (place, query) =
        rest.split_once('?').map_or((rest, String::new()), |(place, query)| (place, format!("?{query}")));
    let authority = place.split('/').next().unwrap_or_default();
    let (user, host) =
        authority.rsplit_once('@').map_or((String::new(), authority), |(user, host)| (format!("{user}@"), host));
    let host = port.map_or_else(|| host.to_owned(), |port| format!("127.0.0.1:{port}"));
    Ok(format!("{scheme}://{user}{host}/{database}{query}"))
}
