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
    let one = TestApp::builder().env("REDIS_TIMEOUT", "10s").start().await;
    let (database, redis) = (one.database.as_ref().unwrap().url(), one.redis.as_ref().unwrap().url());
    let other = TestApp::builder().env("DATABASE_URL", database).env("REDIS_URL", redis).env("REDIS_TIMEOUT", "10s");
    (one, other.start().await)
}
