//! The JSON schemas that are checked in are those of the documents; `UPDATE=1` writes them anew.

use std::fs;
use std::path::Path;

use containers::diagnose::Diagnosis;
use containers::startup::Startup;
use containers::watch::memory::MemoryReport;
use containers::watch::monitor::Monitoring;
use schemars::{JsonSchema, schema_for};

use crate::deploy::report::{Plan, Report};
use crate::engine::report::Engine;
use crate::exit::Failure;
use crate::history::History;
use crate::output::{Document, Envelope};
use crate::status::Status;

fn check<T: Document + JsonSchema + 'static>() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(format!("{}.json", T::KIND));
    let schema = serde_json::to_string_pretty(&schema_for!(Envelope<'static, T>)).unwrap() + "\n";
    #[expect(clippy::disallowed_methods, reason = "tests have no command line of their own")]
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &schema).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, schema, "{} is old: run with UPDATE=1", path.display());
}

#[test]
fn schemas_of_all_documents_are_up_to_date() {
    check::<Diagnosis>();
    check::<Engine>();
    check::<Failure>();
    check::<History>();
    check::<MemoryReport>();
    check::<Monitoring>();
    check::<Plan>();
    check::<Report>();
    check::<Startup>();
    check::<Status>();
}
