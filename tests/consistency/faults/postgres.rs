//! A Postgres that dies, or loses its last commits.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use devkit::Fault as Net;
use tempfile::TempDir;

use crate::judge::At;
use crate::load::Load;
use crate::world::World;

pub async fn kill(world: &World, load: &Load) -> anyhow::Result<()> {
    let now = load.now();
    load.judge().database_dies(now);
    world.postgres.kill().await
}

pub async fn restart(world: &World, load: &Load) -> anyhow::Result<()> {
    world.postgres.restart().await?;
    let now = load.now();
    load.judge().database_is_back(now);
    Ok(())
}

/// The data folder as it was: what a replica had received, or a backup, when the server died.
pub struct Kept {
    data: PathBuf,
    copy: TempDir,
    at: At,
}

impl Kept {
    /// Copies the data while the server is down for a moment.
    pub async fn take(world: &World, load: &Load) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(&world.direct_url(), tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let data: String = client.query_one("show data_directory", &[]).await?.get(0);
        let kept = Self { data: data.into(), copy: tempfile::tempdir()?, at: load.now() };
        kill(world, load).await?;
        copy(&kept.data, kept.copy.path())?;
        restart(world, load).await?;
        Ok(kept)
    }

    /// Puts the copy in the server's place; `promoted`: as a server that was a standby, on a timeline of its own.
    pub async fn put_back(self, world: &World, load: &Load, promoted: bool) -> anyhow::Result<()> {
        // Nobody may write before the judge has seen what is there.
        world.ways_to_postgres().for_each(|way| way.set(Net::Refuse));
        kill(world, load).await?;
        std::fs::remove_dir_all(&self.data).context("can't remove the data")?;
        let name = self.data.file_name().context("the data folder has no name")?;
        copy(&self.copy.path().join(name), self.data.parent().context("the data folder is the root")?)?;
        if promoted {
            let settings = self.data.join("postgresql.auto.conf");
            let text = std::fs::read_to_string(&settings)?;
            std::fs::write(&settings, format!("{text}\nrestore_command = 'false'\n"))?;
            std::fs::write(self.data.join("recovery.signal"), "")?;
            own(&self.data.join("PG_VERSION"), &self.data.join("recovery.signal"))?;
        }
        restart(world, load).await?;
        load.went_back(&world.direct_url(), self.at).await?;
        world.ways_to_postgres().for_each(|way| way.set(Net::None));
        Ok(())
    }
}

fn copy(folder: &Path, into: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").arg(folder).arg(into).status()?;
    ensure!(status.success(), "can't copy {}", folder.display());
    Ok(())
}

/// Gives a file to the owner of another.
fn own(like: &Path, file: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let owner = std::fs::metadata(like)?;
    Ok(chown(file, Some(owner.uid()), Some(owner.gid()))?)
}
