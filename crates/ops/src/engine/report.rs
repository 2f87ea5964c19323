//! `ops engine`: can the engine be reached, and which versions does it speak?

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::connect::{EngineArgs, connect};
use crate::exit::{Exit, OrExit, Result};
use crate::output::{Document, Output};

/// What the engine says about itself.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Engine {
    address: String,
    version: Option<String>,
    api_version: Option<String>,
    kernel: Option<String>,
}

impl Document for Engine {
    const KIND: &'static str = "engine";
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
        let (version, api, kernel) = (known(&self.version), known(&self.api_version), known(&self.kernel));
        writeln!(f, "{}: engine {version}, API {api}, kernel {kernel}", self.address)
    }
}

/// Asks and shows.
pub async fn run(args: &EngineArgs, output: &Output) -> Result<Exit> {
    let docker = connect(args).await?;
    let version = docker.version().await.or_exit(Exit::Unreachable, "can't ask the engine for its version")?;
    output.show(&Engine {
        address: args.docker_host.clone(),
        version: version.version,
        api_version: version.api_version,
        kernel: version.kernel_version,
    })?;
    Ok(Exit::Done)
}
