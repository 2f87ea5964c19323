//! Redis from the machine's package manager.

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::container::Container;
use crate::programs::find;
use crate::redis::program;
use crate::say::say;
use crate::settings::{Source, allowed};

/// Package managers and what installs a Redis (or Valkey, where that is what there is).
const MANAGERS: [(&str, &str); 5] = [
    ("apt-get", "apt-get update && apt-get install --yes --no-install-recommends redis-server"),
    ("dnf", "dnf install --assumeyes redis || dnf install --assumeyes valkey"),
    ("apk", "apk add redis"),
    ("pacman", "pacman --sync --refresh --noconfirm valkey"),
    ("brew", "brew install redis"),
];

/// Makes sure that private Redis servers can be started, if there is a way. False: there is none, and it was said.
pub(super) async fn redis(yes: bool) -> anyhow::Result<bool> {
    if program().is_some() {
        return Ok(true);
    }
    if allowed("REDIS", Source::Download)
        && let Err(error) = install(yes).await
    {
        say(format_args!("redis: not installed: {error:#}"));
    }
    if program().is_some() {
        return Ok(true);
    }
    let container =
        allowed("REDIS", Source::Container) && tokio::task::spawn_blocking(Container::possible).await.unwrap_or(false);
    if !container {
        say("redis: there is none, no way was found to install it, and no Docker runs");
    }
    Ok(container)
}

async fn install(yes: bool) -> anyhow::Result<()> {
    let manager = MANAGERS.iter().find(|(name, _)| find(name).is_some());
    let (name, script) = manager.context("no package manager that we know (apt-get, dnf, apk, pacman, brew)")?;
    let root = rustix::process::geteuid().is_root();
    let shell: &[&str] = if root || *name == "brew" { &["sh", "-c"] } else { &["sudo", "sh", "-c"] };
    let shown = if shell.len() > 2 { format!("sudo sh -c '{script}'") } else { (*script).to_owned() };
    if !root && !yes {
        bail!("pass --yes to run: {shown}");
    }
    say(format_args!("redis: installing with: {shown}"));
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(script).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().await.with_context(|| format!("can't run {}", shell[0]))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}
