//! A TCP proxy that breaks on demand.

mod connection;
mod pipe;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::port::{self, Port};
use crate::say::say;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes flow.
    None,
    /// Every answer arrives that much later; what is under way at once isn't delayed one after the other.
    Latency(Duration),
    /// Connections are accepted and their bytes swallowed, existing and new ones. When the fault ends, those that
    /// lost something are reset, the others go on.
    BlackHole,
    /// Nothing listens: new connections are refused, existing ones go on.
    Refuse,
    /// Existing connections fall silent for good, as if the peer had vanished without a FIN; new ones work.
    HalfOpen,
}

/// Stands between a client and a server on loopback; lives on the runtime it was started on.
#[derive(Debug)]
pub struct FaultProxy {
    shared: Arc<Shared>,
    runtime: Handle,
    listener: Mutex<Option<Arc<TcpListener>>>,
    port: Port,
}

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    open: AtomicUsize,
    accepted: AtomicU64,
}

/// What every connection watches; the counters tell one that was open before an event from one opened after.
#[derive(Clone, Copy, Debug)]
struct State {
    target: SocketAddr,
    fault: Fault,
    cuts: u64,
    half_opens: u64,
}

impl FaultProxy {
    /// Listens on a free loopback port and forwards to `target`.
    #[expect(clippy::unused_async, reason = "it needs a runtime, which whoever awaits it has")]
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let (state, _) = watch::channel(State { target, fault: Fault::None, cuts: 0, half_opens: 0 });
        let shared = Arc::new(Shared { state, open: AtomicUsize::new(0), accepted: AtomicU64::new(0) });
        let proxy = Self { shared, runtime: Handle::current(), listener: Mutex::new(None), port: Port::reserve()? };
        proxy.listen()?;
        Ok(proxy)
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port of [`FaultProxy::addr`].
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Switches to a fault; it holds until the next call.
    pub fn set(&self, fault: Fault) {
        self.shared.state.send_modify(|state| {
            state.fault = fault;
            state.half_opens += u64::from(fault == Fault::HalfOpen);
        });
        if fault == Fault::Refuse {
            self.close();
        } else if let Err(error) = self.listen() {
            say(format_args!("devkit: the proxy can't listen on {} again: {error}", self.addr()));
        }
    }

    /// Forwards new connections to another server, as after a failover; existing ones go on.
    pub fn forward_to(&self, target: SocketAddr) {
        self.shared.state.send_modify(|state| state.target = target);
    }

    /// Resets (RST) every open connection, to both sides.
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| state.cuts += 1);
    }

    /// How many connections are open now.
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections were accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    fn listen(&self) -> std::io::Result<()> {
        let mut current = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_some() {
            return Ok(());
        }
        let socket = port::bind(self.port())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        let _runtime = self.runtime.enter();
        let listener = Arc::new(TcpListener::from_std(socket.into())?);
        self.runtime.spawn(accept(Arc::clone(&listener), Arc::clone(&self.shared)));
        *current = Some(listener);
        Ok(())
    }

    /// Ends listening before it returns; the accepting task notices and ends too.
    fn close(&self) {
        if let Some(listener) = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = SockRef::from(&*listener).shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.close();
        self.cut();
    }
}

async fn accept(listener: Arc<TcpListener>, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(connection::serve(client, Arc::clone(&shared)));
            }
            // EINVAL: no longer listening.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
