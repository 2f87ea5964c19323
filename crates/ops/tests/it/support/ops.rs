use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::{LIMIT, Stack};

/// How `ops` ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Fails with all it wrote unless it ended like this.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }
}

/// `ops` at work.
pub struct Running(Child);

impl Running {
    pub async fn ended(self) -> Ended {
        let output = tokio::time::timeout(LIMIT, self.0.wait_with_output()).await;
        Ended::new(&output.unwrap_or_else(|_| panic!("ops took longer than {LIMIT:?}")).unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(id) = self.0.id() {
            let _ = kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal);
        }
    }
}

impl Stack {
    /// Starts `ops` on this stack.
    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ops"));
        command.arg("--balancer").arg(&self.socket).arg("--state-dir").arg(self.folder.path()).args(args);
        let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Running(pipes.spawn().unwrap())
    }

    /// Runs it to its end.
    pub async fn ops(&self, args: &[&str]) -> Ended {
        self.start(args).ended().await
    }

    /// Its document.
    pub async fn json(&self, args: &[&str]) -> serde_json::Value {
        let ended = self.ops(&[&["--json"], args].concat()).await;
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    }
}
