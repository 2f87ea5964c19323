//! What Cargo knows of the workspace; nothing here depends on the service's name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::say::say;
use crate::settings::var_os;

/// Tests that need other programs, and tests that need the machine for themselves.
const GROUPS: [&str; 2] = [ALL, SICK];
pub(super) const ALL: &str = "all-tests";
pub(super) const SICK: &str = "sick-tests";

/// The workspace with the service, its root package.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) root: PathBuf,
    pub(super) package: String,
    /// Packages, and those of their features that bring tests.
    groups: Vec<(String, Vec<&'static str>)>,
    binary: String,
}

/// The Cargo that runs us, so that the toolchain is the same.
pub(super) fn cargo() -> PathBuf {
    var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Runs Cargo with its progress and errors in sight. (`Command::output` would swallow them, whatever was set before.)
async fn heard(command: &mut Command) -> anyhow::Result<Output> {
    let running = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true).spawn();
    running.context("can't run cargo")?.wait_with_output().await.context("can't run cargo")
}

impl Workspace {
    pub(super) async fn find() -> anyhow::Result<Self> {
        let mut command = Command::new(cargo());
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let output = heard(&mut command).await?;
        if !output.status.success() {
            bail!("cargo metadata failed");
        }
        Self::parse(&serde_json::from_slice(&output.stdout)?).context("can't find the service in the workspace")
    }

    fn parse(metadata: &Value) -> anyhow::Result<Self> {
        let root = PathBuf::from(metadata["workspace_root"].as_str().context("no workspace root")?);
        let manifest = root.join("Cargo.toml");
        let packages = metadata["packages"].as_array().context("no packages")?;
        let is_root = |package: &&Value| package["manifest_path"].as_str().map(Path::new) == Some(&manifest);
        let package = packages.iter().find(is_root).context("the workspace has no root package")?;
        let name = package["name"].as_str().context("a package without a name")?.to_owned();
        let targets = package["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_binary = |target: &&Value| target["kind"].as_array().is_some_and(|kinds| kinds.contains(&"bin".into()));
        let binaries: Vec<&str> =
            targets.iter().filter(is_binary).filter_map(|target| target["name"].as_str()).collect();
        let wanted = package["default_run"].as_str().unwrap_or(&name);
        let binary = match binaries[..] {
            [only] => only,
            _ if binaries.contains(&wanted) => wanted,
            _ => bail!("package {name} has several binaries: name one in `default-run`, or none"),
        };
        let groups = packages.iter().map(|package| {
            let has = |feature: &&str| package["features"][*feature].is_array();
            (package["name"].as_str().unwrap_or_default().to_owned(), GROUPS.into_iter().filter(has).collect())
        });
        Ok(Self { root, binary: binary.to_owned(), groups: groups.collect(), package: name })
    }

    /// Features that bring tests of this package, or of any.
    pub(super) fn groups(&self, package: Option<&str>) -> BTreeSet<&'static str> {
        let chosen = self.groups.iter().filter(|(name, _)| package.is_none_or(|package| package == name));
        chosen.flat_map(|(_, features)| features.iter().copied()).collect()
    }

    /// Builds the service and tells where it is.
    pub(super) async fn build(&self, release: bool) -> anyhow::Result<PathBuf> {
        say(format_args!("{}: building …", self.binary));
        let mut command = Command::new(cargo());
        command.args(["build", "--message-format=json-render-diagnostics"]);
        command.args(["--package", &self.package, "--bin", &self.binary]).current_dir(&self.root);
        if release {
            command.arg("--release");
        }
        let output = heard(&mut command).await?;
        if !output.status.success() {
            bail!("the service doesn't build");
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        let executable = messages.lines().rev().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let ours = message["target"]["name"].as_str() == Some(self.binary.as_str());
            message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
        });
        executable.context("cargo doesn't say where the service is")
    }
}
