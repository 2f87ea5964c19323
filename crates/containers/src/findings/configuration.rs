//! Rules about how a container was set up.

use super::Severity::{self, High, Low, Medium};
use super::{Finding, Rule, Thresholds};
use crate::container::configuration::Configuration;
use crate::container::facts::Facts;

const RULES: &[Rule] = &[engine_socket, capabilities, latest, published];

/// What is either set up well or not: id, severity, test, evidence, advice.
type Check = (&'static str, Severity, fn(&Configuration) -> bool, &'static str, &'static str);

#[rustfmt::skip]
const CHECKS: &[Check] = &[
    ("privileged", High, |c| c.privileged, "it has all rights of root on the host", "Give it the one capability or device that it needs."),
    ("no-memory-limit", Medium, |c| c.memory_limit.is_none(), "it may use all of the host's memory", "Set --memory: a leak then ends this container, not its neighbours."),
    ("root", Medium, Configuration::root, "its processes run as root", "Set USER in the image, or --user."),
    ("no-cpu-quota", Low, |c| c.cpu_quota.is_none(), "it may use all of the host's CPUs", "Set --cpus."),
    ("no-pids-limit", Low, |c| c.pids_limit.is_none(), "it may start processes without end", "Set --pids-limit."),
    ("no-health-check", Low, |c| !c.health_check, "nothing notices when it hangs", "Set HEALTHCHECK in the image."),
    ("writable-root", Low, |c| !c.read_only, "its root file system can be written", "Set --read-only, with --tmpfs /tmp."),
    ("new-privileges", Low, |c| !c.no_new_privileges, "programs with the setuid bit gain rights", "Set --security-opt no-new-privileges."),
    ("no-log-rotation", Low, |c| !c.log_rotation, "its log file grows without end", "Set --log-opt max-size=10m --log-opt max-file=3."),
];

pub(super) fn findings(facts: &Facts, thresholds: &Thresholds) -> impl Iterator<Item = Finding> {
    let judged = RULES.iter().filter_map(|rule| rule(facts, thresholds));
    let failed = CHECKS.iter().filter(|check| check.2(&facts.configuration));
    judged.chain(failed.map(|&(id, severity, _, evidence, advice)| Finding::new(id, severity, evidence, advice)))
}

/// With these a process can become root on the host.
const DANGEROUS: [&str; 7] = ["ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "DAC_READ_SEARCH", "BPF"];

fn engine_socket(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let mut mounts = facts.configuration.mounts.iter();
    let socket = |path: &str| path.ends_with("/docker.sock");
    let mount = mounts.find(|mount| socket(&mount.source) || socket(&mount.destination))?;
    let evidence = format!("{} is mounted at {}", mount.source, mount.destination);
    let advice = "Who can write to it is root on the host: put a filtering proxy between.";
    Some(Finding::new("engine-socket", High, evidence, advice))
}

fn capabilities(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let added = &facts.configuration.capabilities;
    let dangerous = added.iter().any(|name| DANGEROUS.contains(&name.trim_start_matches("CAP_")));
    let evidence = format!("added: {}", added.join(", "));
    let advice = "Drop all and add what it needs; most services need none.";
    let severity = if dangerous { High } else { Medium };
    (!added.is_empty()).then(|| Finding::new("added-capabilities", severity, evidence, advice))
}

/// A digest names one image for ever; a registry's port isn't a tag.
fn latest(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let image = facts.image.as_str();
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let floating = !image.contains("sha256:") && matches!(tag, None | Some("latest"));
    let evidence = format!("{image} is another image tomorrow");
    floating.then(|| Finding::new("latest-tag", Low, evidence, "Name a version or a digest."))
}

fn published(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let everywhere = |port: &&String| port.starts_with("0.0.0.0:") || port.starts_with(":::");
    let ports: Vec<_> = facts.configuration.ports.iter().filter(everywhere).map(String::as_str).collect();
    let evidence = format!("published on all of the host's addresses, past its firewall: {}", ports.join(", "));
    let advice = "Publish on 127.0.0.1 behind a balancer, unless it is the edge.";
    (!ports.is_empty()).then(|| Finding::new("published-everywhere", Low, evidence, advice))
}
