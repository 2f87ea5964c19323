use std::time::Instant;

use devkit::wait_until;

use super::{LIMIT, TestApp};

impl TestApp {
    /// The sum of all series of this name that have these labels, written as they stand there: `status="200"`.
    pub async fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").await.text;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let found = series.split('{').next()? == name && labels.iter().all(|label| series.contains(label));
            if found { value.parse::<f64>().ok() } else { None }
        });
        values.sum()
    }

    /// Statements and transactions of this name that were sent to the database, successful or not.
    pub async fn queries(&self, name: &str) -> f64 {
        let label = format!(r#"db_operation_name="{name}""#);
        self.sum("db_client_operation_duration_seconds_count", &[&label]).await
    }

    /// Requests to this route that were answered with this status.
    pub async fn answered(&self, route: &str, status: u16) -> f64 {
        let labels = [format!(r#"http_route="{route}""#), format!(r#"http_response_status_code="{status}""#)];
        self.sum("http_requests_total", &[&labels[0], &labels[1]]).await
    }

    /// Waits until so many requests are being worked on, probes not counted.
    pub async fn wait_for_in_flight(&self, what: &str, wanted: impl Fn(f64) -> bool) {
        let condition = async || wanted(self.sum("http_requests_in_flight", &[]).await);
        wait_until(what, LIMIT, condition).await.unwrap();
    }

    /// Waits until the cache has heard of all that was written so far, by whomever.
    pub async fn wait_until_heard(&self) {
        let start = Instant::now();
        let heard = async || {
            let since = start.elapsed().as_secs_f64();
            self.metric("cache_log_lag_seconds").await.is_some_and(|lag| lag < since)
        };
        wait_until("the cache has read the log", LIMIT, heard).await.unwrap();
    }

    /// Waits until `/health` says this.
    pub async fn wait_for_health(&self, status: &str) {
        let condition = async || self.get("/health").await.json()["status"] == status;
        wait_until(&format!("/health says {status}"), LIMIT, condition).await.unwrap();
    }
}
