//! Stands between `ops` and the engine: tells when a container's counters are asked for, and can cut every connection.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

pub struct Relay {
    folder: tempfile::TempDir,
    asked: Receiver<()>,
    streams: Arc<Mutex<Vec<UnixStream>>>,
}

impl Relay {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let (sender, asked) = channel();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&streams);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let engine = UnixStream::connect("/var/run/docker.sock").unwrap();
                let ends = [&client, &engine].map(|stream| stream.try_clone().unwrap());
                kept.lock().unwrap().extend(ends.map(|stream| stream.try_clone().unwrap()));
                let (up, down) = ((client.try_clone().unwrap(), engine.try_clone().unwrap()), (engine, client));
                let sender = sender.clone();
                std::thread::spawn(move || copy(up.0, up.1, Some(&sender)));
                std::thread::spawn(move || copy(down.0, down.1, None));
            }
        });
        Self { folder, asked, streams }
    }

    pub fn address(&self) -> String {
        format!("unix://{}/docker.sock", self.folder.path().display())
    }

    /// Waits until counters of `count` containers were asked for.
    pub fn wait(&self, count: usize) {
        (0..count).for_each(|_| self.asked.recv_timeout(std::time::Duration::from_secs(120)).unwrap());
    }

    /// The engine is gone: nobody listens, and connections end.
    pub fn cut(&self) {
        std::fs::remove_file(self.folder.path().join("docker.sock")).unwrap();
        let streams = self.streams.lock().unwrap();
        streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream, asked: Option<&Sender<()>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let stats = buffer[..length].windows(7).any(|window| window == b"/stats?");
        if let (Some(asked), true) = (asked, stats) {
            let _ = asked.send(());
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
