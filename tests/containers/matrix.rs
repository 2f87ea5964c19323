//! How often the balancer looks, and how long a replica waits for that: measured for `docs/deploying.md`.

use std::time::Duration;

use devkit::load::Report;

use crate::support::{Project, docker, mixed_load, wait_for_more};

#[tokio::test]
#[ignore = "twenty minutes: cargo dev nightly"]
async fn failures_are_measured_by_check_interval_and_drain_delay() {
    let drains = ["0s", "1s", "3s", "6s"];
    println!("| retries | interval | drain {} |", drains.join(" | drain "));
    for retries in ["0", "3"] {
        for interval in ["1s", "2s", "5s"] {
            let mut project = Project::new(&[("RETRIES", retries), ("CHECK_INTERVAL", interval)]).await;
            let mut row = Vec::new();
            for drain in drains {
                project.set("DRAIN_DELAY", drain);
                project.start().await;
                let report = stop_one(&project).await;
                // The documentation promises so for what it recommends.
                assert!((retries, interval, drain) != ("3", "1s", "6s") || report.failures() == 0, "{report}");
                row.push(format!("{} of {}", report.failures(), report.total()));
            }
            println!("| {retries} | {interval} | {} |", row.join(" | "));
        }
    }
}

/// One replica of two is stopped under load.
async fn stop_one(project: &Project) -> Report {
    let load = mixed_load(project, Duration::from_millis(20)).await;
    wait_for_more(&load, 2000).await;

    docker(&["stop", "--time=60", &project.container("blue1").await]).await;
    // More time than the balancer needs to notice: seven seconds or so.
    wait_for_more(&load, 8000).await;
    load.stop().await
}
