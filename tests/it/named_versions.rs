//! Images of others and versions of programs are those of `docker/versions.env`, wherever they are named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use devkit::versions;

/// Where images and versions are named; of folders, in every file.
const PLACES: [&str; 8] = ["Dockerfile", "README.md", "compose.yaml", ".ci", "crates", "docker", "docs", "tests"];

/// Where images may be named that only older data need.
const OLD: &str = ".ci/run";

#[test]
fn generated_names_of_images_and_versions_are_those_of_the_one_file() {
    let mut wrong = Vec::new();
    let files: Vec<PathBuf> = PLACES.iter().flat_map(|place| files(&checkout(place))).collect();
    for file in files.iter().filter(|file| !file.ends_with("docker/versions.env")) {
        // Whatever isn't text names nothing.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        // Digests are for what is run; who reads wants the tag.
        let prose = file.extension().is_some_and(|extension| extension == "md" || extension == "rs");
        let (wanted, changes) = corrected(&text, prose, file.ends_with(OLD));
        if changes.is_empty() {
            continue;
        }
        if updating() {
            std::fs::write(file, wanted).unwrap();
        } else {
            wrong.push(format!("{}: {}", file.display(), changes.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "run `UPDATE=1 cargo test generated`\n{}", wrong.join("\n"));
}

#[test]
fn every_image_that_is_run_stands_in_the_one_file() {
    let known: Vec<&str> = listed(false).collect();
    let mut count = 0;
    for file in files(&checkout("docker")).into_iter().chain([checkout("Dockerfile"), checkout("compose.yaml")]) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        // The Dockerfile's stages, and what this project builds itself.
        let own = |name: &&str| !name.contains("plinth") && !text.contains(&format!(" AS {name}\n"));
        for image in text.lines().filter_map(image).filter(own).filter(|name| *name != "scratch") {
            assert!(known.contains(&image), "{}: {image} isn't in docker/versions.env", file.display());
            count += 1;
        }
    }
    assert!(count > 20, "only {count} images were found");
}

#[test]
fn an_image_that_only_older_data_need_is_run_nowhere_else() {
    let old = format!("image: {}\n", versions::image("POSTGRES_OLD").unwrap());
    let new = format!("image: {}\n", versions::image("POSTGRES").unwrap());
    assert_eq!(corrected(&old, false, false).0, new);
    assert_eq!(corrected(&old, false, true).0, old);
}

#[test]
fn every_image_of_the_one_file_has_a_version() {
    for (name, value) in versions::all() {
        let (of, version) = parted(value);
        let digest = version.split_once('@').is_none_or(|(_, digest)| digest.starts_with("sha256:"));
        assert!(!of.is_empty() && !version.is_empty() && version != "latest" && digest, "{name}={value}");
    }
}

#[test]
fn the_toolchain_is_the_one_that_the_image_is_built_with() {
    let version = parted(versions::image("RUST").unwrap()).1.split('-').next().unwrap();
    let toolchain = std::fs::read_to_string(checkout("rust-toolchain.toml")).unwrap();
    assert!(toolchain.contains(&format!("channel = \"{version}.")), "rust {version} isn't in {toolchain}");
}

#[test]
fn the_load_tests_are_tried_with_the_k6_that_users_are_told_to_take() {
    let version = parted(versions::image("K6").unwrap()).1.split('@').next().unwrap();
    let run = std::fs::read_to_string(checkout(".ci/run")).unwrap();
    assert!(run.contains(&format!("k6=={version} ")), ".ci/run has another k6 than {version}");
}

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[expect(clippy::disallowed_methods, reason = "asks whether to write the files; not a setting of the service")]
fn updating() -> bool {
    std::env::var("UPDATE").is_ok_and(|value| value == "1")
}

/// The files of a folder, or the file itself; without what is built.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("target"));
    paths.flat_map(|path| files(&path)).collect()
}

/// The image that a line of a Dockerfile, compose file or manifest runs.
fn image(line: &str) -> Option<&str> {
    let line = line.trim_start_matches([' ', '-']);
    let named =
        ["image: ", "FROM ", "COPY --from=", "# syntax="].iter().find_map(|before| line.strip_prefix(before))?;
    let name = named.split([' ', '#']).next()?.trim_matches(['"', '\'']);
    // `${NAME:-image}`: the usual one.
    Some(name.split_once(":-").map_or(name, |(_, usual)| usual.trim_end_matches('}')))
}

/// What a version is of, with what separates the two, and the version: `redis:` and `8`.
fn parted(value: &str) -> (&str, &str) {
    let at = value.find([':', '@', '=']).unwrap_or_else(|| panic!("{value} has no version"));
    let separator = if value[at..].starts_with("==") { 2 } else { 1 };
    value.split_at(at + separator)
}

/// What the one file lists; with what only older data need, or without.
fn listed(old: bool) -> impl Iterator<Item = &'static str> {
    versions::all().filter(move |(name, _)| old || !name.ends_with("_OLD")).map(|(_, value)| value)
}

/// The text with the versions that it should have, and what was changed.
fn corrected(text: &str, prose: bool, old: bool) -> (String, Vec<String>) {
    let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (of, version) in listed(old).map(parted) {
        known.entry(of).or_default().push(version);
        if let (true, Some((tag, _))) = (prose, version.split_once('@')) {
            known.entry(of).or_default().insert(0, tag);
        }
    }
    let (mut text, mut changes) = (text.to_owned(), Vec::new());
    for (of, versions) in known {
        let found: Vec<(usize, String)> = named(&text, of).map(|(at, found)| (at, found.to_owned())).collect();
        // From the end, so that places stay where they are.
        for (at, found) in found.into_iter().rev().filter(|(_, found)| !versions.contains(&found.as_str())) {
            let wanted = likest(&found, &versions);
            text.replace_range(at..at + found.len(), wanted);
            changes.push(format!("{of}{found} instead of {wanted}"));
        }
    }
    (text, changes)
}

/// Of several versions the one that begins most like this one, and the first of those.
fn likest<'a>(found: &str, versions: &[&'a str]) -> &'a str {
    let alike = |version: &&&str| found.bytes().zip(version.bytes()).take_while(|(one, other)| one == other).count();
    versions.iter().rev().max_by_key(alike).unwrap()
}

/// The versions that a text names of something, and where they begin.
fn named<'a>(text: &'a str, of: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    text.match_indices(of).filter_map(move |(at, _)| {
        let start = at + of.len();
        let part = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
        let end = text[start..].find(|c| !part(c)).map_or(text.len(), |length| start + length);
        let version = text[start..end].trim_end_matches(['.', ':', '-']);
        // Part of a longer name, or a host in a URL; and a host's port.
        let longer = text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "/@.-_".contains(c));
        let port = version.len() > 3 && version.bytes().all(|byte| byte.is_ascii_digit());
        let begins = version.starts_with(|c: char| c.is_ascii_alphanumeric());
        (begins && !longer && !port).then_some((start, version))
    })
}
