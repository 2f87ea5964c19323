//! Loopback ports that stay ours, also while no server listens on them.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use socket2::{Domain, Socket, Type};

/// A free loopback port. On Linux a bound socket that never listens holds it: connecting is refused, a server that
/// sets `SO_REUSEADDR` (Postgres, Redis, ours) can listen, and nobody else is handed the number.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _held: Option<Socket>,
}

impl Port {
    pub(crate) fn reserve() -> anyhow::Result<Self> {
        let socket = bind(0).context("no free port on 127.0.0.1")?;
        let address = socket.local_addr()?.as_socket().context("a socket without an address")?;
        let held = cfg!(target_os = "linux").then_some(socket);
        Ok(Self { number: address.port(), _held: held })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        loopback(self.number)
    }
}

/// A bound socket of which further ones can be made; it doesn't listen yet.
pub(crate) fn bind(port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&loopback(port).into())?;
    Ok(socket)
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port of 127.0.0.1 that was free a moment ago; someone else may take it before you do.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(Port::reserve()?.number())
}
