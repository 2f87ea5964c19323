//! A process that can't outlive us.
//!
//! A guardian, a small `sh` in a process group of its own, reads from a pipe that only we hold. When the pipe closes,
//! because we are done, crashed or were killed, it ends the process and removes the folder of the run. The process
//! writes its id there itself before it starts, so there is no moment in which the guardian doesn't know it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::Context;

use crate::account::Account;
use crate::folder;

/// Arguments: folder, signal, seconds until KILL. Without the folder `pids` a process that starts now ends at once.
const GUARDIAN: &str = r#"
trap '' HUP INT QUIT TERM
while read -r line; do :; done
mv "$1/pids" "$1/ending"
for file in "$1"/ending/*; do
    [ -s "$file" ] && read -r id <"$file" || continue
    case $file in
    *.container) docker rm --force --volumes "$id"; continue ;;
    esac
    kill -s "$2" -- "-$id"
    kill -s CONT -- "-$id"
    tries=$(($3 * 20))
    while [ "$tries" -gt 0 ] && kill -s 0 -- "-$id"; do
        sleep 0.05
        tries=$((tries - 1))
    done
    kill -s KILL -- "-$id"
done
rm -rf "$1"
"#;

/// Arguments: folder for the id, program, its arguments.
const START: &str = r#"echo $$ >"$1/process" && shift && exec "$@""#;

/// A run's folder with its guardian, and the process in it.
#[derive(Debug)]
pub(crate) struct Guard {
    folder: PathBuf,
    account: Option<Account>,
    guardian: Child,
    pipe: Option<ChildStdin>,
    process: Option<Child>,
}

impl Guard {
    /// Makes a folder for a run and starts its guardian, which will send `signal`, then KILL after `seconds`.
    pub(crate) fn new(account: Option<Account>, signal: &str, seconds: u32) -> anyhow::Result<Self> {
        let base = folder::base(account.as_ref())?;
        let run = folder::new_run(&base, account.as_ref())?;
        let mut command = Command::new("sh");
        command.args(["-c", GUARDIAN, "devkit-guardian"]).arg(&run.path).arg(signal).arg(seconds.to_string());
        // As its output it holds the lock as well, so that nobody sweeps the folder while it works.
        command.stdin(Stdio::piped()).stdout(run.lock).stderr(Stdio::null());
        command.current_dir("/").process_group(0);
        let mut guardian = command.spawn().context("can't start sh, which guards private servers")?;
        let pipe = guardian.stdin.take();
        Ok(Self { folder: run.path, account, guardian, pipe, process: None })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command that runs in the run's folder as its user, with its output in the file `log`.
    pub(crate) fn command(&self, program: &Path) -> anyhow::Result<Command> {
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(user) = &self.account {
            user.apply(&mut command);
        }
        Ok(command)
    }

    /// Starts the guarded process, the leader of a group of its own; `set` adds its arguments and the like.
    pub(crate) fn start(&mut self, program: &Path, set: impl FnOnce(&mut Command)) -> anyhow::Result<u32> {
        let mut command = self.command(Path::new("sh"))?;
        command.args(["-c", START, "sh"]).arg(self.folder.join("pids")).arg(program).process_group(0);
        set(&mut command);
        let process = command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        let id = process.id();
        self.process = Some(process);
        Ok(id)
    }

    /// The process, if it was started and not yet taken out by [`Guard::ended`].
    pub(crate) fn process(&mut self) -> Option<&mut Child> {
        self.process.as_mut()
    }

    /// Its id while it runs; stays valid until [`Guard::ended`] since it isn't waited for elsewhere.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// To be called when the process has ended: kills it if not, and forgets its id.
    pub(crate) fn ended(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
            let _ = std::fs::remove_file(self.folder.join("pids/process"));
        }
    }

    /// Lets the guardian remove the container of that name at the end.
    pub(crate) fn add_container(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.folder.join("pids/server.container"), format!("{name}\n"))?)
    }

    /// The last lines of the log, for messages.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read(self.folder.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.ended();
        self.pipe = None;
        let _ = self.guardian.wait();
    }
}
