//! Files of this repository: read, made, compared; and programs that check them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::de::DeserializeOwned;

pub fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

pub fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

pub fn parse<T: DeserializeOwned>(file: &str) -> T {
    serde_saphyr::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The files of a folder with this ending, sorted, as paths from the root.
pub fn list(folder: &str, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(path(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> =
        names.filter(|name| name.ends_with(ending)).map(|name| format!("{folder}/{name}")).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no {ending}");
    files
}

/// `docker/prometheus/alerts/cache.yml` is `cache`.
pub fn stem(file: &str) -> &str {
    Path::new(file).file_stem().unwrap().to_str().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "asks whether to write the files; not a setting of the service")]
pub fn assert_generated(file: &str, wanted: &str) {
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(path(file).parent().unwrap()).unwrap();
        std::fs::write(path(file), wanted).unwrap();
    }
    let found = std::fs::read_to_string(path(file)).unwrap_or_default();
    let hint = "run `UPDATE=1 cargo test --features all-tests --test monitoring generated`";
    assert!(found == wanted, "{file} is not what its source makes; {hint}");
}

/// The program's path, or a failure that says how to get it.
pub fn program(name: &str) -> PathBuf {
    devkit::find(name)
        .unwrap_or_else(|| panic!("there is no `{name}` on this machine; `cargo dev test --all` says where to get it"))
}

/// Runs a checker and returns what it said; it has to succeed.
pub fn check(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(program(name)).args(arguments).current_dir(path("")).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {}: {said}", arguments.join(" "));
    said
}
