use tokio_postgres::config::SslMode;

use crate::config::Config;
use crate::config::DatabaseConfig;
use crate::config::reader::Values;
use crate::store::connect::*;

fn database(query: &str) -> DatabaseConfig {
    let url = format!("postgres://db/plinth{query}");
    Config::read(&Values::new([("DATABASE_URL".to_owned(), url)])).unwrap().database
}

#[test]
fn only_a_url_that_asks_for_tls_gets_it() {
    let wanted = [
        ("", SslMode::Disable),
        ("?sslmode=disable", SslMode::Disable),
        ("?sslmode=prefer", SslMode::Disable),
        ("?sslmode=require", SslMode::Require),
        ("?sslmode=verify-ca", SslMode::Require),
        ("?connect_timeout=3&sslmode=verify-full", SslMode::Require),
    ];
    for (query, mode) in wanted {
        assert_eq!(settings(&database(query)).get_ssl_mode(), mode, "{query}");
    }
}

#[test]
fn statements_end_on_the_server_too() {
    let settings = settings(&database(""));
    let options = settings.get_options().unwrap();
    assert!(options.contains("-c statement_timeout=30000"), "{options}");
}
