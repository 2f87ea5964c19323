//! Finding programs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::settings::var_os;

/// Where packages put servers that aren't in PATH: Debian, RPM, Homebrew.
const PLACES: [&str; 9] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/opt/homebrew/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/bin",
];

/// The program's path: first in PATH, then in the usual places of packages, newest version first.
pub fn find(program: &str) -> Option<PathBuf> {
    candidates(program).next()
}

/// Every file of that name that can be executed, best first.
pub(crate) fn candidates(program: &str) -> impl Iterator<Item = PathBuf> {
    let path = var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(PLACES.iter().flat_map(|place| expand(place))).collect();
    let program = program.to_owned();
    folders.into_iter().map(move |folder| folder.join(&program)).filter(|file| executable(file))
}

fn executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The folders that a place with one `*` stands for, highest number first.
fn expand(place: &str) -> Vec<PathBuf> {
    let Some((before, after)) = place.split_once('*') else { return vec![place.into()] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let version = name.to_str().and_then(|name| name.strip_prefix(prefix)).map(|rest| rest.parse().unwrap_or(0));
        if let Some(version) = version {
            found.push((version, entry.path().join(after.trim_start_matches('/'))));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}
