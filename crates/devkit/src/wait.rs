//! Waiting for a condition instead of sleeping.

use std::time::Duration;

use anyhow::bail;

/// Asks `condition` every 10 ms until it is true; fails with `what` when that takes longer than `limit`.
pub async fn wait_until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(limit, poll).await.is_err() {
        bail!("waited {limit:?} in vain: {what}");
    }
    Ok(())
}
