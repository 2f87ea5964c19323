//! The service of the workspace in which `up` and `test` are tried; not part of this crate.

use std::io::{Read, Write};

fn main() {
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    if std::env::args().nth(1).as_deref() == Some("migrate") {
        eprintln!("migrating {}", var("DATABASE_URL"));
        return;
    }
    if let Ok(code) = var("DIE_WITH").parse() {
        std::process::exit(code);
    }
    let body = ["DATABASE_URL", "REDIS_URL", "API_TOKEN", "LOG_FORMAT", "DRAIN_DELAY"].map(var).join(" ");
    let listener = std::net::TcpListener::bind(("127.0.0.1", var("PORT").parse().unwrap())).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
}
