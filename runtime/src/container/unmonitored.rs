//! Stopping a container while its monitor does not answer: its processes are the monitor's children, and
//! one that has ended stays as it is until the monitor reaps it.

use crate::pod::{Container, EndRecord, Pod, StartRecord, lock, now};
use crate::process::Process;
use crate::runtime::Shared;
use crate::{ContainerState, Error, Result};
use rustix::process::Signal;
use slipway_monitor::protocol::Exit;
use std::time::Duration;

/// A container's first process: the one that is known, or the eldest child of the monitor in the container's cgroup, for a
/// process of an exec comes later. None when it can't be found any more. Once found it is kept: a cgroup does not list what
/// has ended.
pub(crate) fn first(shared: &Shared, pod: &Pod, container: &Container) -> Option<Process> {
    let mut known = lock(&container.first);
    if known.is_none() {
        *known = find(shared, pod, container);
    }
    *known
}

fn find(shared: &Shared, pod: &Pod, container: &Container) -> Option<Process> {
    let monitor = pod.record().monitor?;
    match container.state() {
        ContainerState::Running { pid, .. } if pid > 0 => Process::first_child(monitor, &[pid]),
        ContainerState::Running { .. } | ContainerState::Created { .. } => {
            let started = shared.start_record(container)?;
            Process::first_child(monitor, &started.cgroup.procs().ok()?)
        }
        ContainerState::Exited { .. } => None,
    }
}

/// Sends a container's first process a signal and waits for its end, at most for the grace.
pub(crate) fn signal(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    signal: i32,
    grace: Duration,
) -> Result<()> {
    let Some(first) = first(shared, pod, container) else { return Ok(()) };
    let signal = Signal::from_named_raw(signal)
        .ok_or_else(|| Error::Unsupported(format!("signal {signal} while the monitor does not answer")))?;
    first.signal(signal).map_err(|source| Error::Kernel {
        call: format!("signal container {}, process {}", container.record.request.id, first.pid),
        source,
    })?;
    first.wait(grace);
    Ok(())
}

/// How a container has ended, read from its first process, which has not been reaped.
pub(crate) fn end(
    pod: &Pod,
    container: &Container,
    first: Process,
    started: &StartRecord,
) -> Option<EndRecord> {
    let wait_status = first.unreaped_status(pod.record().monitor?)?;
    let started_at = match container.state() {
        ContainerState::Running { started_at, .. } => started_at,
        ContainerState::Created { .. } | ContainerState::Exited { .. } => started.at,
    };
    // Where nothing counts them, there were none.
    let oom_kills = started.cgroup.oom_kills().unwrap_or_default();
    Some(EndRecord::seen(&Exit { wait_status, oom_kills, started_at, finished_at: now(), timed_out: false }))
}
