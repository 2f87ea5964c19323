//! Why a start failed: rules from evidence to findings, the likeliest cause first.

use regex::Regex;

use super::collect::Evidence;
use super::exit_code::explain;
use crate::findings::{Finding, Severity};

/// In this order: what the engine or the file system proves, then what logs say, then what the exit code allows.
fn rules(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let proved = [out_of_memory, port_taken, wrong_architecture, missing_loader, missing_program, not_executable];
    let weaker = [unhealthy, mount_owner, permission_denied];
    let proved = proved.into_iter().chain(weaker).filter_map(|rule| rule(evidence));
    let logged = LOGGED.iter().filter_map(|&(id, pattern, advice)| {
        let line = said(evidence, pattern)?;
        // A program or loader that is missing writes the same words.
        let explained =
            id == "missing-file" && missing_program(evidence).or_else(|| missing_loader(evidence)).is_some();
        (!explained).then(|| Finding::new(id, Severity::High, line, advice))
    });
    proved.chain(logged).chain(exit_code(evidence))
}

/// What log lines and the engine's errors say: id, pattern, advice.
#[rustfmt::skip]
const LOGGED: &[(&str, &str, &str)] = &[
    ("mount-refused", r"error mounting|invalid mount|bind source path does not exist|mount .* onto a file", "The source must exist on the host, and be a folder where a folder is mounted."),
    ("missing-library", r"error while loading shared libraries|version `GLIBC\S+' not found", "Copy the library into the image, or build on the distribution that it runs on."),
    ("read-only", r"read-only file system|EROFS|os error 30\b", "Write to a volume or a tmpfs (--tmpfs /tmp), not to the image's files."),
    ("missing-environment", r"\b(?-i:[A-Z][A-Z0-9_]{2,})\b.{0,40}(?:not set|must be set|is required|is missing|unset|not defined|not found in environment)|missing (?:required )?environment|environment variable .{0,40}(?:not|missing|required)", "Set it with -e, --env-file, or as a mounted secret."),
    ("dependency", r"connection refused|could not resolve|name or service not known|no such host|temporary failure in name resolution|network is unreachable", "Is what it connects to up, by that name, on one of this container's networks?"),
    ("missing-file", r"no such file or directory|ENOENT|os error 2\b|file not found", "Is it in the image, or mounted, under this path?"),
];

/// The causes of a failed start; none where it runs, or has not been started.
pub fn judge(evidence: &Evidence) -> Vec<Finding> {
    let state = &evidence.facts.state;
    let healthy = state.health.as_deref().is_none_or(|health| health == "healthy" || health == "starting");
    if state.status == "running" && healthy && state.restarts == 0 {
        return Vec::new();
    }
    let mut causes: Vec<_> = rules(evidence).collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.severity));
    causes
}

/// The last line of the log, or the engine's error, that has these words.
fn said<'a>(evidence: &'a Evidence, pattern: &str) -> Option<&'a str> {
    let pattern = Regex::new(&format!("(?i){pattern}")).ok()?;
    let lines = evidence.logs.iter().chain([&evidence.facts.state.error]);
    lines.rev().find(|line| pattern.is_match(line)).map(String::as_str)
}

fn high(id: &str, evidence: impl Into<String>, advice: &str) -> Option<Finding> {
    Some(Finding::new(id, Severity::High, evidence, advice))
}

fn out_of_memory(evidence: &Evidence) -> Option<Finding> {
    let limit = evidence.facts.configuration.memory_limit.map(crate::output::units::bytes);
    let text = format!("the kernel killed it for memory; its limit is {}", limit.unwrap_or("the host's".to_owned()));
    let advice = "Raise the memory limit, or make it use less: `ops memory` shows what it uses it for.";
    evidence.facts.state.oom_killed.then(|| high("oom-killed", text, advice)).flatten()
}

fn port_taken(evidence: &Evidence) -> Option<Finding> {
    static TAKEN: &str = r"address already in use|port is already allocated|EADDRINUSE";
    let line = said(evidence, TAKEN)?;
    let ports = evidence.facts.configuration.ports.iter();
    let ports = ports.filter_map(|port| port.split(" -> ").next()?.rsplit(':').next());
    let holders = evidence
        .others
        .iter()
        .filter(|other| other.rsplit(": ").next().is_some_and(|p| ports.clone().any(|own| own == p)));
    let holders: Vec<_> = holders.map(String::as_str).collect();
    let text = if holders.is_empty() { line.to_owned() } else { format!("{line}; held by {}", holders.join(", ")) };
    high("port-taken", text, "Stop what holds the port (`ss -ltnp` on the host), or publish another.")
}

fn wrong_architecture(evidence: &Evidence) -> Option<Finding> {
    let program = evidence.program.as_ref();
    let foreign = program.filter(|program| program.foreign_to(&evidence.host));
    let text = match foreign {
        Some(program) => {
            let machine = program.machine.as_deref().unwrap_or_default();
            format!("{} is for {machine}, the host is {}", program.path, evidence.host)
        }
        None => said(evidence, "exec format error")?.to_owned(),
    };
    high(
        "wrong-architecture",
        text,
        "Build the image for this platform (docker build --platform), or start it elsewhere.",
    )
}

fn missing_loader(evidence: &Evidence) -> Option<Finding> {
    let program = evidence.program.as_ref().filter(|program| program.found && !program.interpreter_found)?;
    let text = format!("{} is there, but {} that runs it is not", program.path, program.interpreter.as_deref()?);
    high(
        "missing-loader",
        text,
        "Link it statically, use a base image with this loader, or correct the script's first line.",
    )
}

fn missing_program(evidence: &Evidence) -> Option<Finding> {
    let program = evidence.program.as_ref().filter(|program| !program.found)?;
    let text = format!("{} is not in the image ({})", program.path, evidence.facts.state.error);
    high("missing-program", text, "Check the command, the image's ENTRYPOINT and PATH, and whether a mount hides it.")
}

fn not_executable(evidence: &Evidence) -> Option<Finding> {
    let program = evidence.program.as_ref().filter(|program| program.found && !program.executable)?;
    let text = format!("{} can't be executed: it lacks the permission, or is a folder", program.path);
    high("not-executable", text, "Set the permission in the image (COPY --chmod=755).")
}

fn unhealthy(evidence: &Evidence) -> Option<Finding> {
    let state = &evidence.facts.state;
    let last =
        state.probes.last().filter(|_| state.health.as_deref() == Some("unhealthy") && state.status == "running")?;
    let text = format!(
        "{} health checks failed in a row: exit code {}: {}",
        state.failing_streak, last.exit_code, last.output
    );
    high("unhealthy", text, "Run the check's command with `ops debug`; give slow starts a longer start period.")
}

/// Something was denied, and a writable mount belongs to somebody else.
fn mount_owner(evidence: &Evidence) -> Option<Finding> {
    let line = said(evidence, DENIED)?;
    let user: u64 = evidence.facts.configuration.user.split(':').next()?.parse().ok()?;
    let foreign = |mode: u32, owner: u64| user != 0 && owner != user && mode & 0o002 == 0;
    let mount = evidence.owners.iter().find(|mount| foreign(mount.mode, mount.user))?;
    let (path, owner, mode) = (&mount.destination, mount.user, mount.mode);
    let text = format!("{path} belongs to user {owner} (mode {mode:o}), it runs as {user}: {line}");
    high("mount-owner", text, "Give the mounted folder to the container's user (chown), or run as its owner.")
}

static DENIED: &str = r"permission denied|operation not permitted|EACCES|EPERM|os error 13\b";

fn permission_denied(evidence: &Evidence) -> Option<Finding> {
    if mount_owner(evidence).is_some() || not_executable(evidence).is_some() {
        return None;
    }
    high("permission-denied", said(evidence, DENIED)?, "Check the file's owner and mode, and the capabilities dropped.")
}

/// Always last: what can be said at least. A container that was stopped isn't sick.
fn exit_code(evidence: &Evidence) -> Option<Finding> {
    let state = &evidence.facts.state;
    if state.status == "created" {
        let failed = !state.error.is_empty();
        let text = if failed { state.error.as_str() } else { "it was made, and never started" };
        let severity = if failed { Severity::High } else { Severity::Low };
        return Some(Finding::new("not-started", severity, text, "Start it; with --run this command does."));
    }
    let why = explain(state);
    let stopped = why.starts_with("0:") || why.starts_with("143:") || why.contains("killed through the engine");
    let severity = if stopped { Severity::Low } else { Severity::High };
    let last = evidence.logs.last().map(|line| format!("; last log line: {line}")).unwrap_or_default();
    let advice = "The log lines below say more; run it by hand with `docker run -it`.";
    (state.status != "running").then(|| Finding::new("exit-code", severity, format!("exit code {why}{last}"), advice))
}
