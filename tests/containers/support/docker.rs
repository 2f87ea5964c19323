use std::io::ErrorKind;
use std::process::{Output, Stdio};
use std::time::Duration;

use devkit::Cleanup;
use tokio::process::Command;

use super::LIMIT;

/// What a command wrote to stdout, without the last line end; it must succeed.
pub async fn docker(args: &[&str]) -> String {
    succeeded(&mut command(args), LIMIT).await
}

/// How a command ended, whatever its exit code.
pub async fn output(args: &[&str]) -> Output {
    finished(&mut command(args), LIMIT).await
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(args);
    command
}

/// Runs `command` to its end within `limit`; a failure shows what it wrote.
pub async fn succeeded(command: &mut Command, limit: Duration) -> String {
    let output = finished(command, limit).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed:\n{out}{err}");
    out.trim_end().to_owned()
}

/// How `command` ended, which must be within `limit`.
pub async fn finished(command: &mut Command, limit: Duration) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(limit, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{command:?} took longer than {limit:?}"));
    output.unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("there is no `docker` on this machine: https://docs.docker.com/engine/install/"),
        _ => panic!("{command:?}: {error}"),
    })
}

/// A name that nobody else uses.
pub fn unique() -> String {
    format!("plinth-test-{:08x}", rand::random::<u32>())
}

/// A container that is removed at the end.
pub struct Container {
    pub name: String,
    _cleanup: Cleanup,
}

impl Container {
    /// `docker run --detach` with these arguments.
    pub async fn run(args: &[&str]) -> Self {
        let name = unique();
        let cleanup = Cleanup::new(&format!("docker rm --force --volumes {name}")).unwrap();
        docker(&[&["run", "--detach", "--name", &name], args].concat()).await;
        Self { name, _cleanup: cleanup }
    }

    /// The host's address of a published port.
    pub async fn address(&self, port: u16) -> String {
        docker(&["port", &self.name, &port.to_string()]).await.lines().next().unwrap().to_owned()
    }

    /// A field of `docker inspect`.
    pub async fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.name]).await
    }
}
