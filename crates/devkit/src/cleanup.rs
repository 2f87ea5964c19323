//! What must be done at the end, whatever the end is.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A shell command that runs when this is dropped or the process ends, whatever ends it: a shell of a process group of
/// its own waits for the end of a pipe that only we hold. Dropping it waits until the command is done.
#[derive(Debug)]
pub struct Cleanup(Child);

impl Cleanup {
    /// Starts the shell that waits; fails when there is none.
    pub fn new(script: &str) -> std::io::Result<Self> {
        let script = format!("trap '' HUP INT QUIT TERM; while read -r line; do :; done; {script}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        shell.spawn().map(Self)
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // Waiting closes the pipe first.
        let _ = self.0.wait();
    }
}
