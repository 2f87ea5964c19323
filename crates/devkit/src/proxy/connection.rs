//! One connection through the proxy, from accept to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::pipe::pipe;
use super::{Fault, Shared, State};

/// How a connection ends.
enum End {
    /// Both sides have closed.
    Closed,
    /// Both sides get an RST.
    Reset,
}

/// One connection's view of the faults.
#[derive(Clone, Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    born: State,
    lost: Arc<AtomicBool>,
}

impl Link {
    /// Whether bytes are swallowed now.
    pub(super) fn silent(&self) -> bool {
        let state = self.state.borrow();
        state.fault == Fault::BlackHole || state.half_opens != self.born.half_opens
    }

    pub(super) fn latency(&self) -> Duration {
        match self.state.borrow().fault {
            Fault::Latency(latency) => latency,
            Fault::None | Fault::BlackHole | Fault::Refuse | Fault::HalfOpen => Duration::ZERO,
        }
    }

    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }

    /// Ends when the connection has to be reset: cut, or bytes flow again after some were lost.
    async fn reset(mut self) {
        loop {
            let cut = self.state.borrow_and_update().cuts != self.born.cuts;
            if cut || (self.lost.load(Ordering::SeqCst) && !self.silent()) {
                return;
            }
            if self.state.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Counts the connection as open until the end, whatever that is.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let open = Open(shared);
    let state = open.0.state.subscribe();
    let born = *state.borrow();
    let link = Link { state, born, lost: Arc::default() };
    let _ = client.set_nodelay(true);
    let mut server = None;
    let end = tokio::select! {
        biased;
        () = link.clone().reset() => End::Reset,
        end = relay(&mut client, &mut server, &link) => end,
    };
    if matches!(end, End::Reset) {
        for stream in [Some(&client), server.as_ref()].into_iter().flatten() {
            // Closing with a linger of zero sends an RST.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
    // Closed first: who sees the count fall finds the connection gone.
    drop((client, server));
}

async fn relay(client: &mut TcpStream, server: &mut Option<TcpStream>, link: &Link) -> End {
    if link.silent() {
        link.lose();
        let mut chunk = vec![0; 16 * 1024];
        while client.read(&mut chunk).await.is_ok_and(|count| count > 0) {}
        return End::Closed;
    }
    let Ok(connected) = TcpStream::connect(link.born.target).await else { return End::Reset };
    let _ = connected.set_nodelay(true);
    let server = server.insert(connected);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let requests = pipe(from_client, to_server, link, false);
    let answers = pipe(from_server, to_client, link, true);
    match tokio::try_join!(requests, answers) {
        Ok(_) => End::Closed,
        Err(_) if link.silent() => End::Closed,
        Err(_) => End::Reset,
    }
}
