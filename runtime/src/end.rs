//! The end of a container, as it is recorded.

use crate::clock::now;
use crate::error::chain;
use crate::{ContainerState, Error, ExitReason};
use serde::{Deserialize, Serialize};
use slipway_monitor::protocol::{Exit, NEVER_RAN};

/// The end of a start of a container, for good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndRecord {
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) code: i32,
    pub(crate) reason: ExitReason,
    #[serde(default)]
    pub(crate) message: String,
}

/// The reason why nobody knows the exit status of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its monitor ended before it.
    Monitor,
    /// The machine went down while it ran.
    Machine,
    /// The record of its end can't be read.
    Record,
}

impl Loss {
    fn message(self) -> &'static str {
        match self {
            Self::Monitor => {
                "the monitor of its pod ended while it ran: its processes were killed, and its exit status is not known"
            }
            Self::Machine => "the machine went down while it ran: its exit status is not known",
            Self::Record => "the record of its end is damaged: its exit status is not known any more",
        }
    }
}

/// The longest message that is kept, in bytes: as much as kubelet shows.
const LONGEST_MESSAGE: usize = 4096;

impl EndRecord {
    /// The end that a monitor saw.
    pub(crate) fn seen(exit: &Exit) -> Self {
        let status = exit.wait_status;
        let code = if status & 0x7f == 0 { (status >> 8) & 0xff } else { 128 + (status & 0x7f) };
        let reason = match code {
            // The exit status does not count here: the kernel may have killed a child, and the first process continued.
            _ if exit.oom_kills > 0 => ExitReason::OomKilled,
            0 => ExitReason::Completed,
            _ => ExitReason::Error,
        };
        let message = String::new();
        Self { started_at: exit.started_at, finished_at: exit.finished_at, code, reason, message }
    }

    /// The end of a container that could not be started.
    pub(crate) fn not_started(error: &Error) -> Self {
        let mut message = chain(error);
        let end = (0..=LONGEST_MESSAGE).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or_default());
        Self { started_at: 0, finished_at: now(), code: NEVER_RAN, reason: ExitReason::StartError, message }
    }

    /// An end whose exit status is not known, and why.
    pub(crate) fn lost(started_at: i64, why: Loss) -> Self {
        let (code, reason, message) = (255, ExitReason::MonitorLost, why.message().to_owned());
        Self { started_at, finished_at: now(), code, reason, message }
    }

    pub(crate) fn state(&self) -> ContainerState {
        ContainerState::Exited {
            started_at: self.started_at,
            finished_at: self.finished_at,
            code: self.code,
            reason: self.reason,
            message: self.message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(wait_status: i32, oom_kills: u64) -> Exit {
        Exit { wait_status, oom_kills, started_at: 1, finished_at: 2, timed_out: false }
    }

    #[test]
    fn the_message_of_a_failed_start_is_the_error_with_its_cause_and_never_endless() {
        let program = |name: &str| Error::Program {
            id: "one".into(),
            program: name.into(),
            source: std::io::Error::from_raw_os_error(2),
        };
        let end = EndRecord::not_started(&program("/absent"));
        assert!(end.message.starts_with("execute /absent in container one: No such file"), "{}", end.message);
        assert_eq!((end.code, end.reason, end.started_at), (128, ExitReason::StartError, 0));
        let end = EndRecord::not_started(&program(&"é".repeat(10_000)));
        assert!((LONGEST_MESSAGE - 1..=LONGEST_MESSAGE).contains(&end.message.len()));
    }

    #[test]
    fn a_signal_is_128_and_its_number() {
        assert_eq!(EndRecord::seen(&exit(9, 0)).code, 137);
        assert_eq!(EndRecord::seen(&exit(3 << 8, 0)).code, 3);
    }

    #[test]
    fn a_kill_for_memory_is_the_reason_whatever_the_status() {
        for status in [0, 9, 3 << 8] {
            assert_eq!(EndRecord::seen(&exit(status, 1)).reason, ExitReason::OomKilled);
        }
        assert_eq!(EndRecord::seen(&exit(0, 0)).reason, ExitReason::Completed);
    }
}
