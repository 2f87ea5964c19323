//! The servers behind the service: shared by two of it, or asked directly for what nobody can do through it.

use super::TestApp;

/// The service's own database.
pub async fn sql(app: &TestApp) -> tokio_postgres::Client {
    super::sql::session(&app.database.as_ref().expect("a database of its own").url()).await
}

/// The service's own Redis.
pub async fn redis(app: &TestApp) -> redis::aio::MultiplexedConnection {
    let url = app.redis.as_ref().expect("a Redis of its own").url();
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Two replicas on one database and one Redis; both belong to the first. No slow moment of the machine makes them do
/// without Redis.
pub async fn replicas() -> (TestApp, TestApp) {
    let patient = || TestApp::builder().env("REDIS_TIMEOUT", "10s");
    let one = patient().start().await;
    let other = patient().beside(&one).start().await;
    (one, other)
}
