//! Rules about a container's state, history and health.

use super::Severity::{High, Medium};
use super::{Finding, Rule, Thresholds};
use crate::container::facts::Facts;
use crate::container::load::percent;
use crate::container::service::Service;
use crate::output::units::duration;

pub(super) const RULES: &[Rule] = &[
    out_of_memory,
    restart_loop,
    not_started,
    ended,
    unhealthy,
    service_unhealthy,
    service_errors,
    slot,
    failing,
    paused,
];

fn out_of_memory(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let state = &facts.state;
    if !state.oom_killed && state.oom_events == 0 {
        return None;
    }
    let limit = facts.configuration.memory_limit.map(crate::output::units::bytes);
    let limit = limit.map_or("no limit of its own".to_owned(), |limit| format!("limit {limit}"));
    Some(Finding::new(
        "oom-killed",
        High,
        format!("the kernel killed a process for memory ({limit}, {} in the last day)", state.oom_events.max(1)),
        "Find out with `ops memory` whether it leaks; if not, raise the memory limit.",
    ))
}

fn restart_loop(facts: &Facts, thresholds: &Thresholds) -> Option<Finding> {
    let state = &facts.state;
    let fresh = state.uptime.is_some_and(|uptime| uptime < thresholds.restart_window.as_secs_f64());
    if state.restarts == 0 || !(fresh || state.status == "restarting") {
        return None;
    }
    let evidence = format!("started again {} times, last exit code {}", state.restarts, state.exit_code);
    Some(Finding::new("restart-loop", High, evidence, "`ops startup` says why it ends."))
}

fn not_started(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let state = &facts.state;
    let failed = state.status == "created" && (!state.error.is_empty() || state.exit_code != 0);
    let evidence = format!("never started: {}", state.error);
    failed.then(|| Finding::new("not-started", High, evidence, "`ops startup` says why."))
}

/// 143 and 137 are how a gentle and a hurried stop end, 0 is as intended.
fn ended(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let state = &facts.state;
    let stopped = matches!(state.exit_code, 0 | 143) || state.exit_code == 137 && !state.oom_killed;
    if !matches!(state.status.as_str(), "exited" | "dead") || stopped {
        return None;
    }
    Some(Finding::new("exited", High, format!("ended with exit code {}", state.exit_code), "`ops startup` says why."))
}

/// Not of one that was stopped: the engine calls each of those unhealthy.
fn unhealthy(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let state = &facts.state;
    if state.health.as_deref() != Some("unhealthy") || state.status != "running" {
        return None;
    }
    let last =
        state.probes.last().map(|probe| format!(", the last with exit code {}: {}", probe.exit_code, probe.output));
    let evidence = format!("{} health checks failed in a row{}", state.failing_streak, last.unwrap_or_default());
    Some(Finding::new(
        "unhealthy",
        High,
        evidence,
        "Run the health check's command with `ops debug`, and look at the log.",
    ))
}

fn failing(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let state = &facts.state;
    let failed = state.probes.iter().filter(|probe| probe.exit_code != 0).count();
    if state.health.as_deref() == Some("unhealthy") || state.status != "running" || failed == 0 {
        return None;
    }
    let evidence = format!("{failed} of the last {} health checks failed", state.probes.len());
    Some(Finding::new(
        "health-flaps",
        Medium,
        evidence,
        "Watch it with `ops monitor`; is the check's timeout too short?",
    ))
}

fn service_unhealthy(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let service = facts.service.as_ref()?;
    let lost: Vec<_> = service.lost.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    let evidence = format!("/health answers {} ({})", service.status, lost.join(", "));
    let advice = "Look at the dependencies named here first.";
    match service.status.as_str() {
        "healthy" => None,
        "degraded" => Some(Finding::new("service-degraded", Medium, evidence, advice)),
        _ => Some(Finding::new("service-unhealthy", High, evidence, advice)),
    }
}

/// Of fewer answers one or two would make a share.
const FEWEST_ANSWERS: u64 = 20;

/// Only the service's own errors: what clients ask for wrongly isn't its sickness.
fn service_errors(facts: &Facts, thresholds: &Thresholds) -> Option<Finding> {
    let &Service { answers, server_errors, .. } = facts.service.as_ref()?;
    let share = percent(server_errors, answers);
    if answers < FEWEST_ANSWERS || share <= thresholds.service_errors {
        return None;
    }
    let evidence = format!("{server_errors} of {answers} answers ({share:.1} %) had status 500 or above");
    Some(Finding::new("service-errors", Medium, evidence, "Its log lines with status 500 and above name the cause."))
}

fn slot(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let slot = facts.slot.as_ref().filter(|slot| slot.down && slot.weight > 0)?;
    let evidence = format!("slot {} has weight {} and is down", slot.name, slot.weight);
    Some(Finding::new("slot-down", High, evidence, "`ops status` shows every slot; does /health/ready answer 503?"))
}

fn paused(facts: &Facts, _: &Thresholds) -> Option<Finding> {
    let since = facts.state.uptime.map(duration).unwrap_or_default();
    let evidence = format!("paused; started {since} ago");
    (facts.state.status == "paused")
        .then(|| Finding::new("paused", Medium, evidence, "`docker unpause` lets it go on."))
}
