use std::time::Duration;

use devkit::{Redis, wait_until};
use redis::aio::MultiplexedConnection;

use crate::LIMIT;

async fn connect(server: &Redis) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(server.url())?.get_multiplexed_async_connection().await
}

#[tokio::test]
async fn each_server_is_its_own_and_empty() {
    let (one, two) = tokio::try_join!(Redis::start(), Redis::start()).unwrap();
    let mut first = connect(&one).await.unwrap();
    let mut second = connect(&two).await.unwrap();
    let () = redis::cmd("SET").arg("k").arg(1).query_async(&mut first).await.unwrap();
    let there: Option<i32> = redis::cmd("GET").arg("k").query_async(&mut second).await.unwrap();
    assert_eq!(there, None);
}

#[tokio::test]
async fn a_frozen_server_answers_when_it_is_thawed() {
    let server = Redis::start().await.unwrap();
    let mut connection = connect(&server).await.unwrap();
    connection.set_response_timeout(LIMIT);
    server.freeze().unwrap();
    let ping = redis::cmd("PING");
    let answer = ping.query_async::<String>(&mut connection);
    tokio::pin!(answer);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut answer).await.is_err(), "frozen");
    server.thaw().unwrap();
    assert_eq!(answer.await.unwrap(), "PONG");
}

#[tokio::test]
async fn a_stopped_server_comes_back_empty_on_its_port() {
    let server = Redis::start().await.unwrap();
    let port = server.port();
    let mut connection = connect(&server).await.unwrap();
    let () = redis::cmd("SET").arg("k").arg(1).query_async(&mut connection).await.unwrap();

    server.freeze().unwrap();
    server.stop().await.unwrap();
    assert!(connect(&server).await.is_err());

    server.start_again().await.unwrap();
    let mut connection = connect(&server).await.unwrap();
    let there: Option<i32> = redis::cmd("GET").arg("k").query_async(&mut connection).await.unwrap();
    assert_eq!((server.port(), there), (port, None));
}

#[tokio::test]
async fn dropping_the_value_ends_the_server() {
    let server = Redis::start().await.unwrap();
    let address = server.address();
    drop(server);
    wait_until("connecting fails", LIMIT, async || tokio::net::TcpStream::connect(address).await.is_err())
        .await
        .unwrap();
}
