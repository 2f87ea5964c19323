//! Where Postgres's programs come from.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::archive;
use crate::account::Account;
use crate::folder;
use crate::programs::candidates;
use crate::settings::{Source, allowed};

/// The folder with `postgres` and `initdb`, and the user to run them as.
pub(crate) async fn get() -> anyhow::Result<(PathBuf, Option<Account>)> {
    let account = Account::other_than_root()?;
    if allowed("POSTGRES", Source::Binary)
        && let Some(found) = installed()
    {
        return Ok((found, account));
    }
    if !allowed("POSTGRES", Source::Download) {
        bail!("no Postgres on this machine, and DEVKIT_POSTGRES forbids to download one");
    }
    let base = folder::base(account.as_ref())?;
    Ok((archive::download(&base).await?, account))
}

/// A server without `initdb` beside it is of no use; Debian's PATH has only links.
fn installed() -> Option<PathBuf> {
    candidates("postgres").find_map(|program| {
        let program = program.canonicalize().ok()?;
        program.parent().filter(|folder| folder.join("initdb").is_file()).map(Path::to_owned)
    })
}
