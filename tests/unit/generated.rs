use std::path::Path;

/// Compares a checked-in file with what it is made from, or writes it anew.
#[expect(clippy::disallowed_methods, reason = "asks whether to write the files; not a setting of the service")]
pub fn assert_generated(file: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{file} is not what the code makes; run `UPDATE=1 cargo test generated`");
}
