//! What tasks say of how they are and how they ended.

use bollard::models::{Task, TaskState};

/// Tasks of one replica that ended by themselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Deaths {
    pub restarts: i64,
    pub exit_code: i64,
    /// The last one's container.
    pub container: Option<String>,
    /// Why none could be started.
    pub error: String,
}

/// Still has a container, or will have one.
pub(super) fn runs(task: &Task) -> bool {
    let state = task.status.as_ref().and_then(|status| status.state);
    let wanted = task.desired_state.is_some_and(|wanted| wanted <= TaskState::RUNNING);
    // One that isn't wanted any more and never got a container has nothing to stop.
    match state {
        Some(TaskState::STARTING | TaskState::RUNNING) => true,
        Some(state) => wanted && state < TaskState::STARTING,
        None => wanted,
    }
}

/// It is of this replica.
pub(super) fn is(task: &Task, number: usize) -> bool {
    task.slot.and_then(|own| usize::try_from(own).ok()) == Some(number)
}

/// Of one replica, the newest first.
pub(super) fn containers(tasks: &[Task], number: usize) -> Vec<String> {
    let mut mine: Vec<_> = tasks.iter().filter(|task| is(task, number)).collect();
    mine.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    mine.into_iter().filter_map(|task| task.status.as_ref()?.container_status.as_ref()?.container_id.clone()).collect()
}

/// What its container ended with.
pub(super) fn exit_code(task: &Task) -> i64 {
    let container = task.status.as_ref().and_then(|status| status.container_status.as_ref());
    container.and_then(|container| container.exit_code).unwrap_or(0)
}

/// Of the tasks of one replica.
pub fn deaths<'a>(tasks: impl Iterator<Item = &'a Task>) -> Deaths {
    let state = |task: &Task| task.status.as_ref().and_then(|status| status.state);
    let ended =
        |task: &&Task| matches!(state(task), Some(TaskState::COMPLETE | TaskState::FAILED | TaskState::REJECTED));
    let mut ended: Vec<_> = tasks.filter(ended).collect();
    ended.sort_by(|a, b| a.created_at.cmp(&b.created_at));
    let status = ended.last().and_then(|task| task.status.as_ref());
    if !ended.is_empty() && ended.iter().all(|task| state(task) == Some(TaskState::REJECTED)) {
        let error = status.and_then(|status| status.err.clone()).unwrap_or_default();
        return Deaths { error, ..Deaths::default() };
    }
    Deaths {
        restarts: i64::try_from(ended.len()).unwrap_or(i64::MAX),
        exit_code: ended.last().map_or(0, |task| exit_code(task)),
        container: status.and_then(|status| status.container_status.as_ref()?.container_id.clone()),
        error: String::new(),
    }
}
