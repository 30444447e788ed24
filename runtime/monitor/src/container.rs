//! A container as its monitor knows it.
//!
//! ```text
//! Launching ──exec──► Running ──wait status──► Draining ──streams ended, file renamed──► Exited ──Forget──► gone
//!     └──step failed──► Failing ──all reaped──► gone
//! ```

use crate::cgroup::Cgroup;
use crate::launch::Launch;
use crate::log::Log;
use crate::stdio::Streams;
use slipway_monitor::protocol::{Exit, Known, Reply};

/// A launch that failed, until all of its processes are reaped.
#[derive(Debug)]
pub(crate) struct Failing {
    /// Processes that are not reaped yet.
    pub(crate) pids: Vec<i32>,
    /// The reply to the requester, sent when all are reaped.
    pub(crate) reply: Reply,
}

/// A container's state.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Its child executes the plan.
    Launching {
        /// The child.
        launch: Launch,
        /// The sync point it waits at, or 0.
        paused: u8,
    },
    /// Its launch failed.
    Failing(Failing),
    /// Its program runs.
    Running,
    /// Its first process has ended; its streams may still hold output.
    Draining {
        /// How it ended.
        exit: Exit,
        /// When to look at the cgroup again, in nanoseconds since boot.
        look_at: i64,
        /// The next pause between two looks, in nanoseconds.
        pause: i64,
    },
    /// All is done; its exit is kept until `Forget`.
    Exited(Exit),
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) phase: Phase,
    /// Its first process.
    pub(crate) pid: i32,
    /// Nanoseconds since the epoch.
    pub(crate) started_at: i64,
    /// The connection that asked to start it.
    pub(crate) requester: u64,
    pub(crate) cgroup: Cgroup,
    pub(crate) streams: Streams,
    pub(crate) log: Log,
    /// Whether standard input stays open for attached clients.
    pub(crate) stdin: bool,
    /// Whether the first client's end of input closes it.
    pub(crate) stdin_once: bool,
    /// Whether the end of the first process kills the rest.
    pub(crate) kill_rest: bool,
    /// When the cgroup is killed, in nanoseconds since boot.
    pub(crate) deadline: Option<i64>,
    /// Whether it was killed at its deadline.
    pub(crate) timed_out: bool,
    /// If the exit file could not be written: when to retry, in nanoseconds since boot, and the file's content.
    pub(crate) unfiled: Option<(i64, String)>,
}

impl Container {
    /// Its launch, while that lasts.
    pub(crate) fn launch(&self) -> Option<&Launch> {
        match &self.phase {
            Phase::Launching { launch, .. } => Some(launch),
            Phase::Failing(_) | Phase::Running | Phase::Draining { .. } | Phase::Exited(_) => None,
        }
    }

    /// Its processes that are known and not reaped yet.
    pub(crate) fn pids(&self) -> Vec<i32> {
        match &self.phase {
            Phase::Launching { launch, .. } => launch.pids().collect(),
            Phase::Failing(failing) => failing.pids.clone(),
            Phase::Running => vec![self.pid],
            Phase::Draining { .. } | Phase::Exited(_) => Vec::new(),
        }
    }

    /// The container's entry in the reply to `List`.
    pub(crate) fn known(&self, container: &str) -> Known {
        let exit = match &self.phase {
            Phase::Exited(exit) => Some(exit.clone()),
            Phase::Launching { .. } | Phase::Failing(_) | Phase::Running | Phase::Draining { .. } => None,
        };
        Known { container: container.into(), pid: self.pid, started_at: self.started_at, exit }
    }

    /// Whether any process of it may be alive.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Exited(_))
    }

    /// Whether its first process runs its program.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// When the container's next deadline is, in nanoseconds since boot.
    pub(crate) fn due(&self) -> Option<i64> {
        match &self.phase {
            Phase::Running | Phase::Launching { .. } => self.deadline,
            Phase::Draining { look_at, .. } => Some(*look_at),
            Phase::Exited(_) => self.unfiled.as_ref().map(|(again, _)| *again),
            Phase::Failing(_) => None,
        }
    }
}

/// Whether a container's id can be a file's name.
pub(crate) fn is_valid_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&id.len()) && !id.starts_with('.') && id.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::is_valid_id;

    #[test]
    fn an_id_never_leaves_the_state_directory() {
        assert!(is_valid_id("3f2a-b_c.1"));
        for id in ["", ".", "..", "a/b", ".hidden", "a\n"] {
            assert!(!is_valid_id(id), "{id:?}");
        }
    }
}
