//! `plinth healthcheck`: asks the running service from within its container, where there is no shell and no curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::config::HttpConfig;
use crate::config::reader::{Reader, Values};

/// Below the image's `HEALTHCHECK --timeout=3s`.
const LIMIT: Duration = Duration::from_millis(2500);

/// Asks for `path` and fails unless the answer is 2xx.
pub fn ask(values: &Values, path: &str) -> anyhow::Result<()> {
    let mut reader = Reader::new(values);
    let http = HttpConfig::read(&mut reader);
    let http = reader.finish(http)?;
    let ip = if http.bind.is_unspecified() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { http.bind };
    let address = SocketAddr::new(ip, http.management_port.unwrap_or(http.port));
    let silent = || format!("nothing answers on {address}");
    let mut stream = TcpStream::connect_timeout(&address, LIMIT / 3).with_context(silent)?;
    stream.set_read_timeout(Some(LIMIT / 3))?;
    stream.set_write_timeout(Some(LIMIT / 3))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).context("the answer broke off")?;
    let status = String::from_utf8_lossy(&head);
    if !status.starts_with("HTTP/1.1 2") {
        bail!("{path} answered {status:?}");
    }
    Ok(())
}
