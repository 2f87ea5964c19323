use std::time::Duration;

use devkit::{Postgres, wait_until};

use crate::{LIMIT, ask};

#[tokio::test]
async fn two_servers_run_side_by_side() {
    let (one, two) = tokio::try_join!(Postgres::start(), Postgres::start()).unwrap();
    assert_ne!(one.port(), two.port());
    ask(&one.url("postgres"), "create database only_here").await.unwrap();
    assert!(ask(&one.url("only_here"), "select 1").await.is_ok());
    assert!(ask(&two.url("only_here"), "select 1").await.is_err());
    assert_eq!(ask(&two.url("postgres"), "show max_connections").await.unwrap(), "500");
}

#[tokio::test]
async fn a_frozen_server_answers_when_it_is_thawed() {
    let server = Postgres::start().await.unwrap();
    let url = server.url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);

    server.freeze().unwrap();
    let query = client.simple_query("select 1");
    tokio::pin!(query);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut query).await.is_err(), "frozen");

    server.thaw().unwrap();
    query.await.unwrap();
}

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_its_data() {
    let server = Postgres::start().await.unwrap();
    let url = server.url("postgres");
    ask(&url, "create table kept as select 7 as n").await.unwrap();

    server.freeze().unwrap();
    server.kill().await.unwrap();
    assert!(ask(&url, "select 1").await.is_err());

    server.restart().await.unwrap();
    assert_eq!(ask(&url, "select n from kept").await.unwrap(), "7");
}

#[tokio::test]
async fn a_killed_server_breaks_its_connections() {
    let server = Postgres::start().await.unwrap();
    let connected = tokio_postgres::connect(&server.url("postgres"), tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    tokio::spawn(connection);
    server.kill().await.unwrap();
    wait_until("the connection is closed", LIMIT, async || client.is_closed()).await.unwrap();
}
