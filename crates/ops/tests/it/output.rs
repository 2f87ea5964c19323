//! What programs read.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Image, Stack};

/// The schemas that are checked in, which a unit test keeps up to date.
fn schema(kind: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(format!("{kind}.json"));
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

#[track_caller]
fn assert_valid(document: &Value) {
    let kind = document["kind"].as_str().unwrap();
    let validator = jsonschema::validator_for(&schema(kind)).unwrap();
    let errors: Vec<_> = validator.iter_errors(document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{kind}: {errors:?} in {document}");
}

#[tokio::test]
async fn every_document_follows_its_schema_and_the_textfile_is_prometheus_text() {
    let stack = Stack::up(&[]).await;
    let image = Image::Second.tag().await;
    let metrics = stack.folder.path().join("ops.prom");
    let textfile = metrics.to_str().unwrap();
    for args in [
        &["engine"][..],
        &["status"],
        &["deploy", &image, "--dry-run"],
        &["deploy", &image, "--strategy", "canary", "--dry-run"],
        &["deploy", &image, "--textfile", textfile],
        &["status"],
        &["rollback", "--dry-run"],
        &["rollback"],
        &["history"],
        &["deploy", "plinth-there-is-no-such-image:1"],
    ] {
        let document = stack.json(args).await;
        println!("{args:?}: {}", document["kind"]);
        assert_valid(&document);
    }
    let text = fs::read_to_string(&metrics).unwrap();
    for line in [
        "ops_deploy_in_progress 0",
        "ops_expected_replicas 3",
        "ops_canary_weight 100",
        "ops_deploys_total{outcome=\"promoted\"} 1",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let history = stack.json(&["history"]).await;
    let outcomes: Vec<_> = history["lines"].as_array().unwrap().iter().map(|line| line["outcome"].as_str()).collect();
    assert_eq!(outcomes, [Some("promoted"), Some("promoted"), Some("refused")]);
}
