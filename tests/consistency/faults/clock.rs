//! A replica on a wall clock of its own.

use std::path::Path;

use anyhow::Context;
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::world::World;

/// Where Debian and others keep libfaketime.
const FAKETIME: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

pub fn faketime() -> Option<&'static str> {
    FAKETIME.into_iter().find(|library| Path::new(library).is_file())
}

/// The replica's clock, which a file shifts.
pub struct Clock {
    folder: TempDir,
    one: usize,
}

impl Clock {
    /// Starts the replica anew on a clock that is right.
    pub async fn begin(world: &mut World, one: usize) -> anyhow::Result<Self> {
        let clock = Self { folder: tempfile::tempdir()?, one };
        clock.set("+0")?;
        let path = clock.folder.path().join("shift");
        let env = [
            ("LD_PRELOAD", faketime().context("libfaketime is gone")?),
            ("FAKETIME_TIMESTAMP_FILE", path.to_str().context("a path that isn't UTF-8")?),
            ("FAKETIME_NO_CACHE", "1"),
            // Wall clocks jump; monotonic ones don't.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        world.run(one, &env)?;
        world.ready(one).await?;
        Ok(clock)
    }

    /// An hour ahead, an hour behind, or right.
    pub fn shift(&self, random: &mut StdRng) -> anyhow::Result<()> {
        self.set(["+3600", "-3600", "+0"][random.random_range(0..3)])
    }

    fn set(&self, shift: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.folder.path().join("shift"), shift)?)
    }

    pub fn end(self, world: &mut World) -> anyhow::Result<()> {
        world.run(self.one, &[])
    }
}
