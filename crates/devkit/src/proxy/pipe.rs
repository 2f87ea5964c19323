//! One direction of a connection.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::connection::Link;

const CHUNK: usize = 16 * 1024;
/// At most 1 MiB is under way in one direction.
const CHUNKS: usize = 64;

/// Copies until the end of input, which it passes on as a FIN. Chunks wait side by side, not one after the other.
pub(super) async fn pipe(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, link: &Link, delayed: bool) -> Result<()> {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let read = async move {
        loop {
            let mut chunk = vec![0; CHUNK];
            let count = from.read(&mut chunk).await?;
            if link.silent() {
                // A vanished peer hears of no end either; the whole connection is over for us.
                if count == 0 {
                    return Err(Error::from(ErrorKind::ConnectionAborted));
                }
                link.lose();
                continue;
            }
            if count == 0 {
                return Ok(());
            }
            chunk.truncate(count);
            let latency = if delayed { link.latency() } else { std::time::Duration::ZERO };
            if under_way.send((Instant::now() + latency, chunk)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((due, chunk)) = arriving.recv().await {
            // Timers are exact to a millisecond, too coarse for no delay.
            if due > Instant::now() {
                sleep_until(due).await;
            }
            if link.silent() {
                link.lose();
            } else {
                to.write_all(&chunk).await?;
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}
