//! Gathers what the causes of a failed start are judged by.

use std::io::Read;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, ListContainersOptions, LogsOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt};

use super::program::Program;
use crate::container::collect::one;
use crate::container::configuration::Configuration;
use crate::container::facts::{Facts, shortened};
use crate::container::secrets::Secrets;
use crate::engine::failure;
use crate::exit::{Exit, Failure, OrExit, Result};

const LOG_LINES: usize = 50;
const LOG_BYTES: usize = 1 << 20;
/// An ELF program's header and loader are in its first page.
const HEAD: usize = 64 << 10;

/// All that the rules read. Secrets are already taken out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// What the engine knows.
    pub facts: Facts,
    /// The host's architecture, as `uname -m` says it.
    pub host: String,
    /// The file that is started.
    pub program: Option<Program>,
    /// The last log lines.
    pub logs: Vec<String>,
    /// Other containers' published ports, as `name: address:port`.
    pub others: Vec<String>,
    /// Who owns what is mounted writable.
    pub owners: Vec<MountOwner>,
}

/// A mounted folder's owner and mode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOwner {
    /// Where it is mounted.
    pub destination: String,
    /// The owner's user id.
    pub user: u64,
    /// The group's id.
    pub group: u64,
    /// The permission bits.
    pub mode: u32,
}

pub(super) async fn examine(docker: &Docker, id: &str) -> Result<Evidence> {
    let asked = format!("can't examine {id}");
    let inspect = docker.inspect_container(id, None).await.map_err(|error| failure(&error, &asked))?;
    let info = docker.info().await.map_err(|error| failure(&error, &asked))?;
    let secrets = Secrets::of(&inspect);
    // The program is looked for with the real PATH and command; only then are secrets taken out.
    let configuration = Configuration::read(&inspect);
    let mut owners = Vec::new();
    for mount in configuration.mounts.iter().filter(|mount| mount.writable) {
        let entry = entry(docker, id, &mount.destination).await?;
        owners.extend(entry.map(|(header, _)| MountOwner {
            destination: mount.destination.clone(),
            user: header.uid().unwrap_or(0),
            group: header.gid().unwrap_or(0),
            mode: header.mode().unwrap_or(0) & 0o7777,
        }));
    }
    let program = program(docker, id, &configuration).await?;
    let logs = logs(docker, id, &secrets).await?;
    Ok(Evidence {
        facts: one(docker, id, Duration::ZERO).await?,
        host: info.architecture.unwrap_or_default(),
        program: program.map(|program| secrets.scrub(&program)).transpose().or_exit(Exit::OperatorNeeded, &asked)?,
        logs,
        others: published(docker, id).await?,
        owners,
    })
}

/// The last lines; none where the log driver can't be read from.
async fn logs(docker: &Docker, id: &str, secrets: &Secrets) -> Result<Vec<String>> {
    let tail = LOG_LINES.to_string();
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&tail).build();
    let mut stream = Box::pin(docker.logs(id, Some(options)));
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(Ok(chunk)) = stream.next().await {
        bytes.extend_from_slice(chunk.as_ref());
        if bytes.len() > LOG_BYTES {
            break;
        }
    }
    // Secrets first: one cut in half would no longer be known.
    let text = secrets.hide(&String::from_utf8_lossy(&bytes));
    let lines: Vec<_> = text.lines().map(|line| shortened(&visible(line), 500)).collect();
    Ok(lines[lines.len().saturating_sub(LOG_LINES)..].to_vec())
}

/// Without control characters, which could repaint the terminal of who reads it.
fn visible(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

async fn published(docker: &Docker, id: &str) -> Result<Vec<String>> {
    let all = docker.list_containers(None::<ListContainersOptions>).await;
    let all = all.map_err(|error| failure(&error, "can't list containers"))?.into_iter();
    let others = all.filter(|other| other.id.as_deref().is_none_or(|other| !other.starts_with(id)));
    let ports = others.flat_map(|other| {
        let name = other.names.and_then(|names| names.first().cloned()).unwrap_or_default();
        let ports = other.ports.unwrap_or_default().into_iter().filter_map(|port| port.public_port);
        ports.map(move |port| format!("{}: {port}", name.trim_start_matches('/'))).collect::<Vec<_>>()
    });
    Ok(ports.collect())
}

/// Looks for the command as the runtime would, and for what it needs to run.
async fn program(docker: &Docker, id: &str, configuration: &Configuration) -> Result<Option<Program>> {
    let Some(command) = configuration.command.first().filter(|command| !command.is_empty()) else { return Ok(None) };
    let path = configuration.environment.get("PATH").map_or("/usr/sbin:/usr/bin:/sbin:/bin", String::as_str);
    let places: Vec<_> = match command.contains('/') {
        true if command.starts_with('/') => vec![command.clone()],
        true => vec![format!("{}/{command}", configuration.working_directory.trim_end_matches('/'))],
        false => path.split(':').take(32).map(|folder| format!("{folder}/{command}")).collect(),
    };
    for place in &places {
        if let Some((header, head)) = entry(docker, id, place).await? {
            let file = header.entry_type().is_file() || header.entry_type().is_hard_link();
            let executable = file && header.mode().unwrap_or(0) & 0o111 != 0;
            let mut program = Program::read(place, executable, &head);
            if let Some(interpreter) = &program.interpreter {
                program.interpreter_found = entry(docker, id, interpreter).await?.is_some();
            }
            return Ok(Some(program));
        }
    }
    Ok(Some(Program { path: command.clone(), ..Program::default() }))
}

/// A file's or folder's header and first bytes, links followed; none where there is none.
async fn entry(docker: &Docker, id: &str, path: &str) -> Result<Option<(tar::Header, Vec<u8>)>> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        let options = DownloadFromContainerOptionsBuilder::default().path(&path).build();
        let mut stream = Box::pin(docker.download_from_container(id, Some(options)));
        let mut bytes = Vec::new();
        while bytes.len() < HEAD {
            match stream.try_next().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) | Err(bollard::errors::Error::DockerResponseServerError { .. }) => break,
                Err(error) => return Err(failure(&error, "can't read the container's files")),
            }
        }
        let Some((header, head)) = first(&bytes) else { return Ok(None) };
        match header.link_name().ok().flatten().filter(|_| header.entry_type().is_symlink()) {
            Some(link) if link.is_absolute() => path = link.to_string_lossy().into_owned(),
            Some(link) => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                path = format!("{folder}/{}", link.to_string_lossy());
            }
            None => return Ok(Some((header, head))),
        }
    }
    Err(Failure::new(Exit::OperatorNeeded, format!("{path} is a link in a circle")))
}

/// The first entry of an archive that may be cut off.
fn first(bytes: &[u8]) -> Option<(tar::Header, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    let mut head = Vec::new();
    // The end may be missing; what is there is enough.
    let _ = entry.read_to_end(&mut head);
    Some((entry.header().clone(), head))
}
