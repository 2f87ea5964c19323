use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use devkit::wait_until;

use crate::LIMIT;

/// A process that holds private servers, with the ids of all that runs for it and the folders of their data.
struct Parent {
    process: Child,
    servers: Vec<u32>,
    folders: Vec<PathBuf>,
}

impl Parent {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devkit"));
        command.arg("hold").args(args).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().starts_with("holding ")).expect("it says so").unwrap();
        let servers = children(process.id());
        let folders = servers.iter().filter_map(|id| folder(*id)).collect();
        Self { process, servers, folders }
    }

    async fn nothing_is_left(&self) {
        wait_until("no process and no folder is left", LIMIT, async || {
            !self.servers.iter().any(|id| alive(*id)) && !self.folders.iter().any(|folder| folder.exists())
        })
        .await
        .unwrap();
    }

    fn end(&mut self, signal: &str) {
        send(signal, self.process.id());
        self.process.wait().unwrap();
    }
}

fn send(signal: &str, id: u32) {
    assert!(Command::new("kill").args(["-s", signal, &id.to_string()]).status().unwrap().success());
}

fn children(id: u32) -> Vec<u32> {
    let text = Command::new("pgrep").args(["-P", &id.to_string()]).output().unwrap().stdout;
    let direct: Vec<u32> = String::from_utf8(text).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    direct.iter().flat_map(|id| [vec![*id], children(*id)].concat()).collect()
}

/// The folder of the run that a server works in.
fn folder(id: u32) -> Option<PathBuf> {
    let current = std::fs::read_link(format!("/proc/{id}/cwd")).ok()?;
    let is_run =
        |path: &&std::path::Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run-"));
    current.ancestors().find(is_run).map(PathBuf::from)
}

fn alive(id: u32) -> bool {
    // A zombie whose new parent doesn't wait for it is no process any more.
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn kill_9_of_the_parent_leaves_no_process_and_no_data() {
    let mut parent = Parent::start(&[]);
    assert!(parent.servers.len() > 3, "Postgres, its children and the guardian: {:?}", parent.servers);
    assert!(!parent.folders.is_empty());
    parent.end("KILL");
    parent.nothing_is_left().await;
}

#[tokio::test]
async fn the_same_for_frozen_servers_and_for_redis() {
    let mut parent = Parent::start(&["--redis"]);
    for id in &parent.servers {
        if folder(*id).is_some() {
            send("STOP", *id);
        }
    }
    parent.end("KILL");
    parent.nothing_is_left().await;
}

#[tokio::test]
async fn a_plain_kill_of_the_parent_leaves_nothing_either() {
    let mut parent = Parent::start(&[]);
    parent.end("TERM");
    parent.nothing_is_left().await;
}

#[tokio::test]
async fn the_next_start_sweeps_what_is_left_when_the_guardian_was_killed_too() {
    let mut parent = Parent::start(&[]);
    for id in &parent.servers {
        let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        if command.contains("devkit-guardian") {
            send("KILL", *id);
        }
    }
    parent.end("KILL");
    assert!(parent.folders.iter().any(|folder| folder.exists()), "nobody is there to remove it");
    let mut next = Parent::start(&[]);
    parent.nothing_is_left().await;
    assert!(next.folders.iter().all(|folder| folder.exists()), "only what nobody uses is swept");
    next.end("KILL");
    next.nothing_is_left().await;
}
