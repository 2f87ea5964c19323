use std::sync::atomic::{AtomicUsize, Ordering};

use devkit::{Database, FaultProxy, shared_postgres};

use crate::ask;

static MIGRATIONS: AtomicUsize = AtomicUsize::new(0);

async fn database() -> Database {
    let migrate = async |url: String| {
        MIGRATIONS.fetch_add(1, Ordering::SeqCst);
        ask(&url, "create table things (n int)").await.map(drop)
    };
    Database::from_template("things", migrate).await.unwrap()
}

async fn exists(name: &str) -> bool {
    let url = shared_postgres().await.unwrap().url("postgres");
    ask(&url, &format!("select count(*) from pg_database where datname = '{name}'")).await.unwrap() == "1"
}

#[tokio::test]
async fn databases_of_one_template_are_separate() {
    let (one, two) = (tokio::spawn(database()), tokio::spawn(database()));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    ask(&one.url(), "insert into things values (1)").await.unwrap();
    assert_eq!(ask(&one.url(), "select count(*) from things").await.unwrap(), "1");
    assert_eq!(ask(&two.url(), "select count(*) from things").await.unwrap(), "0");
    assert_eq!(MIGRATIONS.load(Ordering::SeqCst), 1, "one migration however many copies");
}

#[tokio::test]
async fn a_database_is_dropped_with_its_value_though_someone_is_connected() {
    let database = database().await;
    let (_client, connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let name = database.name().to_owned();
    assert!(exists(&name).await);
    drop(database);
    assert!(!exists(&name).await);
}

#[test]
fn a_database_can_be_dropped_outside_of_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(database());
    let name = database.name().to_owned();
    drop(runtime);
    drop(database);
    assert!(!tokio::runtime::Runtime::new().unwrap().block_on(exists(&name)));
}

#[tokio::test]
async fn a_failed_migration_is_reported_and_tried_again() {
    let failed = Database::from_template("again", async |_| anyhow::bail!("a syntax error")).await;
    assert!(format!("{:#}", failed.unwrap_err()).contains("a syntax error"));
    Database::from_template("again", async |_| Ok(())).await.unwrap();
}

#[tokio::test]
async fn a_database_is_reached_through_a_proxy() {
    let database = database().await;
    let proxy = FaultProxy::start(shared_postgres().await.unwrap().address()).await.unwrap();
    let name = ask(&database.url_through(proxy.port()), "select current_database()").await.unwrap();
    assert_eq!((name.as_str(), proxy.accepted()), (database.name(), 1));
}
