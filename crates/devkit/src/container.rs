//! The last resort: a server in a container, when Docker runs.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::guard::Guard;
use crate::port::{Port, loopback};
use crate::say::say;

/// A container with one published loopback port; its guardian removes it.
#[derive(Debug)]
pub(crate) struct Container {
    name: String,
    port: u16,
    _guard: Guard,
}

impl Container {
    /// Whether there is a Docker that answers.
    pub(crate) fn possible() -> bool {
        docker(&["version", "--format", "{{.Server.Version}}"]).is_ok()
    }

    /// Runs `image` with `inside` published on a free loopback port.
    pub(crate) fn start(image: &str, inside: u16, settings: &[&str], command: &[&str]) -> anyhow::Result<Self> {
        let guard = Guard::new(None, "KILL", 1)?;
        let name = format!("devkit-{:016x}", rand::random::<u64>());
        guard.add_container(&name)?;
        if docker(&["image", "inspect", image]).is_err() {
            say(format_args!("{image}: pulling the image (once) …"));
        }
        let mut failure = None;
        for _ in 0..5 {
            // Docker doesn't set SO_REUSEADDR the way a held port needs, so the number is only free right now.
            let port = Port::reserve()?.number();
            let publish = format!("{}:{inside}", loopback(port));
            let mut args = vec!["run", "--detach", "--name", &name, "--publish", &publish];
            args.extend(settings);
            args.push(image);
            args.extend(command);
            match docker(&args) {
                Ok(()) => return Ok(Self { name, port, _guard: guard }),
                Err(error) => failure = Some(error),
            }
            let _ = docker(&["rm", "--force", &name]);
        }
        Err(failure.unwrap_or_else(|| anyhow::anyhow!("no container")))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `pause`, `unpause`, `kill` or `start`.
    pub(crate) fn order(&self, verb: &str) -> anyhow::Result<()> {
        docker(&[verb, &self.name])
    }
}

fn docker(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("docker").args(args).stdin(Stdio::null()).output().context("can't run docker")?;
    if !output.status.success() {
        let verb = args.first().copied().unwrap_or_default();
        bail!("docker {verb} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
