//! The images of others, by the names that `docker/versions.env` gives them.

use anyhow::Context;

/// Every name, with what stands for it: an image with its tag, or a program with its version.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../../../docker/versions.env").lines();
    lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='))
}

/// What stands for a name, such as `POSTGRES`.
pub fn image(name: &str) -> anyhow::Result<&'static str> {
    let found = all().find(|(known, _)| *known == name);
    found.map(|(_, image)| image).with_context(|| format!("docker/versions.env has no {name}"))
}
