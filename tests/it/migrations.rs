//! `plinth migrate`, and a schema that doesn't fit.

use std::process::Output;

use devkit::Database;

use crate::support::{TestApp, program};

/// A database without any table.
async fn empty() -> Database {
    Database::from_template("empty", async |_| Ok(())).await.unwrap()
}

async fn run(args: &[&str], database: &Database) -> Output {
    let mut command = program();
    command.args(args).env("DATABASE_URL", database.url()).env("PORT", "0").env("BIND_ADDRESS", "127.0.0.1");
    command.kill_on_drop(true).output().await.unwrap()
}

async fn code(args: &[&str], database: &Database) -> Option<i32> {
    run(args, database).await.status.code()
}

/// Pretends that a later version of the program has migrated.
async fn apply_later(database: &Database, name: &str) {
    let (client, connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let insert = "insert into refinery_schema_history (version, name, applied_on, checksum)
                  values (1000, $1, '2030-01-01T00:00:00Z', '1')";
    client.execute(insert, &[&name]).await.unwrap();
}

#[tokio::test]
async fn check_tells_whether_migrations_are_missing() {
    let database = empty().await;
    assert_eq!(code(&["migrate", "--check"], &database).await, Some(1));
    assert_eq!(code(&["migrate", "--check"], &database).await, Some(1), "it changes nothing");
    assert_eq!(code(&["migrate"], &database).await, Some(0));
    assert_eq!(code(&["migrate", "--check"], &database).await, Some(0));
}

#[tokio::test]
async fn a_second_migrate_has_nothing_to_do() {
    let database = empty().await;
    let first = run(&["migrate"], &database).await;
    let second = run(&["migrate"], &database).await;
    assert!(String::from_utf8(first.stdout).unwrap().contains("V1__users"));
    assert_eq!(String::from_utf8(second.stdout).unwrap(), "nothing to apply\n");
    assert_eq!(second.status.code(), Some(0));
}

#[tokio::test]
async fn many_migrates_at_once_all_succeed_and_one_applies() {
    let database = empty().await;
    let runs = futures_util::future::join_all([(); 6].map(|()| run(&["migrate"], &database))).await;
    for run in &runs {
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
    let applied = runs.iter().filter(|run| String::from_utf8_lossy(&run.stdout).contains("V1__users")).count();
    assert_eq!(applied, 1);
}

#[tokio::test]
async fn a_schema_that_is_behind_is_refused_with_a_sentence() {
    let output = run(&["serve"], &empty().await).await;
    let log = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("schema is behind") && log.contains("V1__users") && log.contains("plinth migrate"), "{log}");
}

#[tokio::test]
async fn migrate_on_start_brings_the_schema_along() {
    let database = empty().await;
    let app = TestApp::builder().env("DATABASE_URL", database.url()).env("MIGRATE_ON_START", "true").start().await;
    app.create_user("Ada", "ada@example.com").await;
}

#[tokio::test]
async fn a_schema_that_is_ahead_is_accepted() {
    let database = crate::support::database().await;
    apply_later(&database, "more_columns").await;
    assert_eq!(code(&["migrate", "--check"], &database).await, Some(0));
    assert_eq!(code(&["migrate"], &database).await, Some(0));
    let app = TestApp::builder().env("DATABASE_URL", database.url()).start().await;
    app.create_user("Ada", "ada@example.com").await;
}

#[tokio::test]
async fn a_later_contract_migration_is_refused_with_a_sentence() {
    let database = crate::support::database().await;
    apply_later(&database, "contract_drop_email").await;
    assert_eq!(code(&["migrate", "--check"], &database).await, Some(1));
    let output = run(&["serve"], &database).await;
    let log = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("contract_drop_email") && log.contains("later version"), "{log}");
}

#[tokio::test]
async fn a_migrate_that_reaches_no_database_fails_with_a_sentence() {
    let proxy = devkit::FaultProxy::start("127.0.0.1:1".parse().unwrap()).await.unwrap();
    proxy.set(devkit::Fault::Refuse);
    let url = format!("postgres://plinth:hunter2@{}/plinth", proxy.addr());
    let output = program().arg("migrate").env("DATABASE_URL", url).output().await.unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.starts_with("plinth: can't connect to the database"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

/// The service's last words when it is started on this database.
async fn refused(url: &str, migrate: &str) -> String {
    let env = [("DATABASE_URL", url), ("MIGRATE_ON_START", migrate), ("PORT", "0"), ("BIND_ADDRESS", "127.0.0.1")];
    let run = program().envs(env).kill_on_drop(true).output();
    let output = tokio::time::timeout(crate::support::LIMIT, run).await.expect("it ends by itself").unwrap();
    let log = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{log}");
    log
}

#[tokio::test]
async fn a_wrong_password_or_database_is_refused_and_not_waited_for() {
    let right = crate::support::database().await.url();
    let (account, place) = right.rsplit_once('@').unwrap();
    let (start, password) = account.rsplit_once(':').unwrap();
    assert_ne!(password, "hunter2");
    let log = refused(&format!("{start}:hunter2@{place}"), "false").await;
    assert!(log.contains("check the user and the password in DATABASE_URL"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");

    let (server, _) = right.rsplit_once('/').unwrap();
    let log = refused(&format!("{server}/nowhere"), "false").await;
    assert!(log.contains("check the database's name in DATABASE_URL"), "{log}");
    assert!(!log.contains(password), "{log}");
}

#[tokio::test]
async fn a_migration_that_cannot_be_applied_is_refused() {
    let broken = empty().await;
    let (client, connection) = tokio_postgres::connect(&broken.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("create table users (other int)").await.unwrap();
    let log = refused(&broken.url(), "true").await;
    assert!(log.contains("a migration failed") && log.contains("check the migrations"), "{log}");

    let diverged = crate::support::database().await;
    let (client, connection) = tokio_postgres::connect(&diverged.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("update refinery_schema_history set checksum = '1'").await.unwrap();
    let log = refused(&diverged.url(), "true").await;
    assert!(log.contains("different than filesystem") && log.contains("check the migrations"), "{log}");
}
