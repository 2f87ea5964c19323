//! The only place that reads the environment.

use std::ffi::OsString;

/// The variable's value; an empty one counts as unset.
pub(crate) fn var(name: &str) -> Option<String> {
    var_os(name)?.into_string().ok()
}

/// Like [`var`], for paths.
#[expect(clippy::disallowed_methods, reason = "devkit's one place that reads the environment")]
pub(crate) fn var_os(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Whether `--yes` was given here or to the `cargo dev` that runs these tests.
pub(crate) fn yes() -> bool {
    var(YES).is_some()
}

/// Set by `cargo dev test --yes` for the tests it runs.
pub(crate) const YES: &str = "DEVKIT_YES";

/// Where a server may come from; `DEVKIT_POSTGRES` and `DEVKIT_REDIS` narrow it to one, to test that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Url,
    Binary,
    /// Postgres: downloaded from Maven. Redis: installed by the package manager.
    Download,
    Container,
}

/// Whether `source` may be used for the server (`POSTGRES` or `REDIS`).
pub(crate) fn allowed(server: &str, source: Source) -> bool {
    let Some(only) = var(&format!("DEVKIT_{server}")) else { return true };
    match source {
        Source::Url => only == "url",
        Source::Binary => only == "binary",
        Source::Download => only == "download" || only == "install",
        Source::Container => only == "container",
    }
}
