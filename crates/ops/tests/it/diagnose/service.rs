//! The service's own view of itself, and its slot in the balancer.

use std::time::Duration;

use devkit::wait_until;
use serde_json::Value;

use crate::diagnose::support::ids;
use crate::support::{LIMIT, Stack};

/// The replica in the first blue slot, watched long enough for errors to be judged.
async fn first(stack: &Stack) -> Value {
    let label = format!("com.docker.compose.project={}", stack.name);
    let document = stack.json(&["diagnose", "--label", &label, "--for", "4s", "--service-errors", "1"]).await;
    let blue = |one: &&Value| one["slot"]["name"] == "blue1";
    document["containers"].as_array().unwrap().iter().find(blue).unwrap_or_else(|| panic!("{document}")).clone()
}

#[tokio::test]
async fn a_service_that_lost_its_database_says_so_in_its_health_and_its_answers() {
    let stack = Stack::up(&[]).await;
    let load = stack.load(Duration::from_millis(20)).await;

    let well = first(&stack).await;
    assert_eq!((&well["service"]["status"], &well["service"]["server_errors"]), (&"healthy".into(), &0.into()));
    assert!(well["service"]["answers"].as_u64().unwrap() >= 20, "{well}");
    assert_eq!((&well["slot"]["down"], well["slot"]["weight"].as_u64().unwrap() > 0), (&false.into(), true));

    stack.compose(&["stop", "--timeout", "0", "database"]).await;
    let found = async || {
        let lost = first(&stack).await;
        let ids = ids(&lost["findings"]);
        println!("{ids:?} {}", lost["service"]);
        ids.contains(&"service-errors") && ids.iter().any(|id| matches!(*id, "service-unhealthy" | "service-degraded"))
    };
    wait_until("the loss is found", LIMIT, found).await.unwrap();
    load.stop().await;
}
