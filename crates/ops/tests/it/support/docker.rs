use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::LIMIT;

/// What `docker` wrote to stdout, without the last line end; it must succeed.
pub async fn docker(args: &[&str]) -> String {
    succeeded(Command::new("docker").args(args), "").await
}

/// Runs `command` with this input to its end; a failure shows what it wrote.
pub async fn succeeded(command: &mut Command, input: &str) -> String {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = pipes.spawn().unwrap_or_else(|error| panic!("{command:?}: {error} (Docker is needed)"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{command:?} took longer than {LIMIT:?}")).unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed:\n{out}{err}");
    out.trim_end().to_owned()
}
