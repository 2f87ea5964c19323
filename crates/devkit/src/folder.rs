//! Where private servers keep their data: `dev/` in Cargo's target folder, a folder for each run.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, bail};

use crate::account::Account;
use crate::process;
use crate::say::say;
use crate::settings::var_os;

/// The folder for everything of devkit that `account` can enter.
pub(crate) fn base(account: Option<&Account>) -> anyhow::Result<PathBuf> {
    let Some(target) = target() else { return temporary() };
    let dev = target.join("dev");
    fs::create_dir_all(&dev).with_context(|| format!("can't make the folder {}", dev.display()))?;
    match account {
        Some(user) if !user.can_enter(&dev) => {
            let instead = temporary()?;
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                let (dev, name, instead) = (dev.display(), user.name(), instead.display());
                say(format_args!("devkit: user {name} can't enter {dev}; private servers use {instead} instead"));
            });
            Ok(instead)
        }
        _ => Ok(dev),
    }
}

/// Cargo's target folder, as the place of the running program tells it (the library runs inside tests too).
fn target() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let marked = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    // Cargo marks only a target folder that it made itself.
    let profile = || program.ancestors().find(|folder| folder.join(".fingerprint").is_dir()).and_then(Path::parent);
    marked.or_else(profile).map(Path::to_owned).or_else(|| var_os("CARGO_TARGET_DIR").map(PathBuf::from))
}

/// A folder of ours in the system's temporary directory, which anyone else could have made before us.
fn temporary() -> anyhow::Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("devkit-{uid}"));
    match DirBuilder::new().mode(0o755).create(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::symlink_metadata(&folder),
    }
    .with_context(|| format!("can't use the folder {}", folder.display()))
    .and_then(|found| {
        if !found.is_dir() || found.uid() != uid || found.permissions().mode() & 0o022 != 0 {
            bail!("{} isn't a folder that only we can write: remove it", folder.display());
        }
        Ok(folder)
    })
}

/// A folder of one run; whoever holds the lock uses it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) path: PathBuf,
    pub(crate) lock: File,
}

/// Makes a folder for a run, owned by `account`, and removes those that nobody uses any more.
pub(crate) fn new_run(base: &Path, account: Option<&Account>) -> anyhow::Result<Run> {
    let all = lock_file(&base.join("lock"))?;
    all.lock().context("can't lock the folder of private servers")?;
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| sweep(base));
    let path = tempfile::Builder::new().prefix("run-").tempdir_in(base)?.keep();
    let lock = lock_file(&path.join("lock"))?;
    lock.lock()?;
    fs::create_dir(path.join("pids"))?;
    if let Some(user) = account {
        user.own(&path)?;
        user.own(&path.join("pids"))?;
    }
    Ok(Run { path, lock })
}

fn lock_file(path: &Path) -> anyhow::Result<File> {
    let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
    open.with_context(|| format!("can't open {}", path.display()))
}

/// Removes folders left by runs whose owner and guardian are both gone: power loss, or everything killed at once.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with("run-") {
            continue;
        }
        // The lock is the system's (flock), so it ends with the last process that holds it.
        // One that can't be opened is another user's.
        let stale = lock_file(&path.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if stale {
            process::end_those_in(&path);
            if let Err(error) = fs::remove_dir_all(&path) {
                say(format_args!("devkit: can't remove the stale folder {}: {error}", path.display()));
            }
        }
    }
}
