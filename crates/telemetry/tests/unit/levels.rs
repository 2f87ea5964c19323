use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn levels() -> Arc<Levels> {
    Arc::new(Levels::new("info".parse().unwrap(), Handle::current()))
}

#[tokio::test]
async fn the_end_of_a_replaced_change_that_comes_late_ends_no_later_one() {
    let levels = levels();
    levels.change("debug".parse().unwrap(), HOUR);
    levels.change("trace".parse().unwrap(), HOUR);
    // As when its timer was past being aborted while the second change was made.
    levels.end(1);
    assert_eq!(levels.text(), "trace");
    levels.end(2);
    assert_eq!(levels.text(), "info");
}

#[tokio::test(start_paused = true)]
async fn a_change_after_a_return_has_its_own_time() {
    let levels = levels();
    levels.change("debug".parse().unwrap(), HOUR);
    levels.restore();
    assert_eq!(levels.text(), "info");
    levels.change("warn".parse().unwrap(), 2 * HOUR);
    tokio::time::sleep(HOUR + HOUR / 2).await;
    assert_eq!(levels.text(), "warn");
    tokio::time::sleep(HOUR).await;
    assert_eq!(levels.text(), "info");
}
