//! What clients of the stacks ask for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use devkit::load::{Ask, Load, Report, Traffic};
use devkit::wait_until;
use serde_json::json;

use super::LIMIT;

/// One request of twenty is a write, one must be computed. Over kept and new connections.
pub async fn mixed(to: SocketAddr, token: String, pause: Duration) -> Load {
    let run: u32 = rand::random();
    let asks = move |number: u64| match number % 20 {
        0 => Ask {
            method: "POST",
            path: "/api/users".to_owned(),
            body: json!({"name": "Ada", "email": format!("{run}-{number}@example.com")}).to_string(),
            token: Some(token.clone()),
            ..Ask::default()
        },
        1 => get(format!("/api/data/{run}-{number}")),
        _ => get("/api/test".to_owned()),
    };
    let (asks, limit) = (Arc::new(asks), Duration::from_secs(30));
    let load = Load::start(&Traffic { to, kept: 12, fresh: 4, pause, limit, count: u64::MAX, sampled: 0, asks });
    wait_until("requests are answered", LIMIT, async || load.answered() > 100).await.unwrap();
    load
}

pub fn get(path: String) -> Ask {
    Ask { method: "GET", path, ..Ask::default() }
}

/// No request was lost.
#[track_caller]
pub fn assert_none_failed(report: &Report) {
    println!("{report}");
    assert_eq!(report.failures(), 0, "{report}");
}
