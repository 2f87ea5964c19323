//! The program itself, and containers made sick on purpose.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs `ops` with these arguments.
pub fn ops(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ops")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs `ops --json` and reads its one document.
pub fn json(arguments: &[&str]) -> (i32, Value) {
    let output = ops(&[arguments, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let code = output.status.code().unwrap();
    let document = serde_json::from_str(&text);
    (code, document.unwrap_or_else(|error| panic!("{error}: exit {code}, {text:?}, {:?}", output.stderr)))
}

/// The findings of a field, as ids.
pub fn ids(document: &Value) -> Vec<&str> {
    document.as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap()).collect()
}

/// A container, removed when the test ends.
pub struct Sick {
    pub name: String,
}

/// Set up as it should be: nothing is to be found in it but what a test adds.
const WELL: &[&str] = &[
    "--user=1001",
    "--memory=128m",
    "--cpus=1",
    "--pids-limit=64",
    "--read-only",
    "--tmpfs=/tmp",
    "--security-opt=no-new-privileges",
    "--log-opt=max-size=1m",
    "--health-cmd=true",
    "--health-interval=1s",
];

/// A Debian with a shell.
pub fn debian() -> &'static str {
    devkit::versions::image("DEBIAN").unwrap()
}

impl Sick {
    /// Set up well but for `options`, doing `command`. Later options win over earlier ones.
    pub fn new(options: &[&str], command: &[&str]) -> Self {
        Self::bare(&[WELL, options].concat(), command)
    }

    /// With these options only.
    pub fn bare(options: &[&str], command: &[&str]) -> Self {
        let sick = Self { name: name() };
        // Some never start; that is what is wrong with them.
        docker(&[&["run", "--detach", "--name", &sick.name], options, &[debian()], command].concat());
        sick
    }

    /// Its state, as the engine tells it.
    pub fn state(&self) -> Value {
        let text = docker(&["inspect", "--format", "{{json .State}}", &self.name]);
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until it ended.
    pub fn ended(self) -> Self {
        until("the container ended", || self.state()["Status"] != "running");
        self
    }

    /// Ended as the kernel killed it for memory. The engine sometimes misses such a kill, so that another is tried.
    pub fn killed_for_memory() -> Self {
        let fill = ["perl", "-e", "vec(my $x, 500_000_000, 8) = 1"];
        let mut killed = (0..5).map(|_| Self::new(&["--memory=32m"], &fill).ended());
        killed.find(|sick| sick.state()["OOMKilled"] == true).expect("the engine knows of one of five kills")
    }

    /// Waits until its log has this text.
    pub fn wrote(self, text: &str) -> Self {
        until("the container wrote", || docker(&["logs", &self.name]).contains(text));
        self
    }

    /// What `ops diagnose` finds, and its exit code.
    pub fn diagnosed(&self, arguments: &[&str]) -> (i32, Vec<String>) {
        let (code, document) = json(&[&["diagnose", &self.name], arguments].concat());
        let found = ids(&document["containers"][0]["findings"]);
        (code, found.into_iter().map(str::to_owned).collect())
    }

    /// The likeliest cause that `ops startup` names, with its evidence.
    pub fn cause(&self) -> (String, String) {
        let (_, document) = json(&["startup", &self.name]);
        let first = &document["causes"][0];
        (first["id"].as_str().unwrap_or_default().to_owned(), first["evidence"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Sick {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// Waits for a condition; the bound only ends what hangs.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let limit = std::time::Duration::from_secs(120);
    runtime.block_on(devkit::wait_until(what, limit, async || condition())).unwrap();
}

fn name() -> String {
    let random: u64 = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    format!("diagnose-{random:016x}")
}

/// What the client writes, errors included.
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("these tests need docker");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
