//! `ops debug`: tools beside a container, in its process and network namespaces, so that one without a shell can be
//! examined and none is changed. Its files are at `/proc/1/root`.

use std::io::{IsTerminal, Write};

use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    ResizeContainerTTYOptionsBuilder,
};
use futures_util::StreamExt;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::engine::connect::{EngineArgs, connect};
use crate::engine::failure;
use crate::exit::{Exit, Failure, OrExit, Result};
use crate::output::Output;

/// What `ops debug` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A running container's name or id.
    pub container: String,
    /// The image with the tools: the Dockerfile's target `debug`.
    #[arg(long, env = "OPS_DEBUG_IMAGE", default_value = "plinth:debug")]
    pub image: String,
    /// What to run; a shell if nothing is given.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// bash where there is one.
const SHELL: [&str; 3] = ["/bin/sh", "-c", "if command -v bash >/dev/null; then exec bash; fi; exec sh"];

/// Puts the terminal back as it was.
struct Raw(Termios);

impl Raw {
    fn enter() -> rustix::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Runs the tools and hands through what is typed and written.
pub async fn run(args: &Args, engine: &EngineArgs, output: &Output) -> Result<Exit> {
    let docker = connect(engine).await?;
    let target = docker.inspect_container(&args.container, None).await;
    let target = target.map_err(|error| failure(&error, "can't debug"))?;
    if target.state.and_then(|state| state.running) != Some(true) {
        let message = format!("{} doesn't run: there is nothing to attach to; try `ops startup`", args.container);
        return Err(Failure::new(Exit::Precondition, message));
    }
    let shared = format!("container:{}", target.id.unwrap_or_default());
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let body = ContainerCreateBody {
        image: Some(args.image.clone()),
        // In place of the image's own: `plinth:debug` would start another service beside the one that is examined.
        entrypoint: Some(match args.command.as_slice() {
            [] => SHELL.map(str::to_owned).to_vec(),
            command => command.to_vec(),
        }),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        tty: Some(terminal),
        open_stdin: Some(terminal),
        user: Some("0".to_owned()),
        host_config: Some(HostConfig {
            pid_mode: Some(shared.clone()),
            network_mode: Some(shared),
            cap_add: Some(vec!["SYS_PTRACE".to_owned()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options =
        CreateContainerOptionsBuilder::default().name(&format!("ops-debug-{:08x}", rand::random::<u32>())).build();
    let made = docker.create_container(Some(options), body).await;
    let id = made.map_err(|error| failure(&error, &format!("can't start {}", args.image)))?.id;
    let ended = tokio::select! {
        ended = talk(&docker, &id, terminal) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    docker.remove_container(&id, Some(options)).await.map_err(|error| failure(&error, "can't remove the tools"))?;
    match ended? {
        0 => Ok(Exit::Done),
        code => {
            output.progress(format!("the command ended with exit code {code}"));
            Ok(Exit::Warnings)
        }
    }
}

/// Gives it this terminal's size, now and whenever it changes: without, full-screen tools paint 80 columns.
async fn resize(docker: Docker, id: String) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while let Ok(size) = tcgetwinsize(std::io::stdout()) {
        let options = ResizeContainerTTYOptionsBuilder::default().h(size.ws_row.into()).w(size.ws_col.into());
        // It only looks worse.
        let _ = docker.resize_container_tty(&id, options.build()).await;
        changes.recv().await;
    }
}

/// Until its output ends; then its exit code.
async fn talk(docker: &Docker, id: &str, terminal: bool) -> Result<i64> {
    let doing = "can't run the tools";
    let options = AttachContainerOptionsBuilder::default().stream(true).stdin(terminal).stdout(true).stderr(true);
    let attached = docker.attach_container(id, Some(options.build())).await;
    let AttachContainerResults { mut output, mut input } = attached.map_err(|error| failure(&error, doing))?;
    docker.start_container(id, None).await.map_err(|error| failure(&error, doing))?;
    let raw = terminal.then(Raw::enter).transpose().or_exit(Exit::Precondition, doing)?;
    let sizing = terminal.then(|| tokio::spawn(resize(docker.clone(), id.to_owned())));
    let typing = terminal.then(|| {
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut input).await;
            let _ = input.shutdown().await;
        })
    });
    while let Some(Ok(chunk)) = output.next().await {
        let mut stdout = std::io::stdout();
        // Whoever closed the pipe has read enough.
        let _ = stdout.write_all(chunk.as_ref()).and_then(|()| stdout.flush());
    }
    typing.into_iter().chain(sizing).for_each(|task| task.abort());
    drop(raw);
    let inspect = docker.inspect_container(id, None).await.map_err(|error| failure(&error, doing))?;
    Ok(inspect.state.and_then(|state| state.exit_code).unwrap_or(0))
}
