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

/// A launch that came to nothing, until all of it is reaped.
#[derive(Debug)]
pub(crate) struct Failing {
    /// Processes that are not reaped yet.
    pub(crate) pids: Vec<i32>,
    /// What to answer then.
    pub(crate) reply: Reply,
}

/// Where in its life a container is.
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
    /// Its first process has ended, its streams may hold more.
    Draining {
        /// How it ended.
        exit: Exit,
        /// When to look at the cgroup again, by the clock since boot.
        look_at: i64,
        /// How long to wait after that.
        pause: i64,
    },
    /// Everything is done but to forget it.
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
    /// Whether standard input is kept.
    pub(crate) stdin: bool,
    /// Whether the first client's end of input closes it.
    pub(crate) stdin_once: bool,
    /// Whether the end of the first process kills the rest.
    pub(crate) kill_rest: bool,
    /// When the cgroup is killed, by the clock since boot.
    pub(crate) deadline: Option<i64>,
    /// Whether that has happened.
    pub(crate) timed_out: bool,
    /// When to write the exit file again and what it says, where it could not be written.
    pub(crate) unfiled: Option<(i64, String)>,
}

impl Container {
    /// What `List` says.
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

    /// When it next wants to be looked at, by the clock since boot.
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
