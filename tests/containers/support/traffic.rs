use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use devkit::load::{Ask, Load, Traffic};
use devkit::wait_until;
use serde_json::json;

use super::{LIMIT, Project};

/// Reads and writes over kept and new connections through the balancer; of each hundred one is a value that must be
/// computed, two have a body that takes 700 ms, and one of ten is sampled.
pub async fn mixed_load(project: &Project, pause: Duration) -> Load {
    mixed_load_on(project.address().await, project.token().await, pause)
}

/// The same on any balancer.
pub fn mixed_load_on(to: SocketAddr, token: String, pause: Duration) -> Load {
    let run: u32 = rand::random();
    let asks = move |number: u64| match number % 100 {
        0..10 => Ask {
            method: "POST",
            path: "/api/users".to_owned(),
            body: json!({"name": "Ada", "email": format!("{run}-{number}@example.com")}).to_string(),
            slow_body: Duration::from_millis(if number % 100 < 2 { 700 } else { 0 }),
            token: Some(token.clone()),
        },
        10 => get(format!("/api/data/{run}-{number}")),
        11..60 => get("/api/test".to_owned()),
        _ => get("/api/users?limit=3".to_owned()),
    };
    Load::start(&Traffic {
        to,
        kept: 24,
        fresh: 8,
        pause,
        limit: Duration::from_secs(20),
        count: u64::MAX,
        sampled: 10,
        asks: Arc::new(asks),
    })
}

fn get(path: String) -> Ask {
    Ask { method: "GET", path, ..Ask::default() }
}

/// Waits for so many more good answers.
pub async fn wait_for_more(load: &Load, more: u64) {
    let goal = load.answered() + more;
    wait_until("the load is answered", LIMIT, async || load.answered() >= goal).await.unwrap();
}
