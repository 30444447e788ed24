//! A sandbox and a container as the daemon holds them in memory, and their records.

use crate::cgroup::{ContainerCgroup, PodCgroup};
use crate::error::chain;
use crate::link::{Contact, Link};
use crate::monitor_process::Started;
use crate::network::Attachment;
use crate::owner::read_owned;
use crate::process::Process;
use crate::rootfs::users::Identity;
use crate::state::Place;
use crate::{
    ContainerEvent, ContainerRequest, ContainerState, Error, ExitReason, Result, SandboxConfig, SandboxId,
    SandboxState, SandboxStatus,
};
use serde::{Deserialize, Deserializer, Serialize};
use slipway_monitor::protocol::{Exit, NEVER_RAN};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Being made: torn down by the next daemon.
    Creating,
    /// Containers can start.
    Ready,
    /// Its monitor died: nothing runs in it.
    Lost,
    /// Stopped, or being stopped: teardown is repeated until it is done.
    Stopped,
}

/// A sandbox's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    #[serde(deserialize_with = "read_config")]
    pub(crate) config: SandboxConfig,
    pub(crate) stage: Stage,
    pub(crate) created_at: i64,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) cgroup: Option<PodCgroup>,
    pub(crate) pause: Option<ContainerCgroup>,
    /// Its monitor's process, once there is one.
    #[serde(default)]
    pub(crate) monitor: Option<Process>,
    /// What was wrong with the record that this one stands for, of which only the id is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) damage: Option<String>,
}

fn read_config<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<SandboxConfig, D::Error> {
    read_owned(deserializer, "id")
}

fn read_request<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<ContainerRequest, D::Error> {
    read_owned(deserializer, "sandbox")
}

impl PodRecord {
    pub(crate) fn new(config: &SandboxConfig) -> Self {
        Self {
            config: config.clone(),
            stage: Stage::Creating,
            created_at: now(),
            addresses: Vec::new(),
            netns: None,
            cgroup: None,
            pause: None,
            monitor: None,
            damage: None,
        }
    }

    pub(crate) fn attached(&mut self, attachment: &Attachment) {
        self.addresses = attachment.addresses.iter().map(|cidr| cidr.address).collect();
        self.netns = Some(attachment.netns_path.clone());
    }
}

/// A sandbox.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its records and files, which last.
    pub(crate) root: PathBuf,
    /// Its socket, exit files and mounts, gone after a reboot.
    pub(crate) state: PathBuf,
    pub(crate) place: Place,
    record: Mutex<PodRecord>,
    /// Held while the record is written, so that who reads it waits for no disk.
    writing: Mutex<()>,
    /// The way to its monitor.
    pub(crate) link: Link,
    /// Held while the sandbox is made, stopped or removed.
    pub(crate) operation: Mutex<()>,
    /// The monitor, when this daemon started it.
    pub(crate) monitor: Mutex<Option<Started>>,
}

impl Pod {
    pub(crate) fn new(place: Place, state: PathBuf, record: PodRecord, contact: Contact) -> Self {
        Self {
            root: place.directory.clone(),
            state,
            place,
            record: Mutex::new(record),
            writing: Mutex::new(()),
            link: Link::new(contact),
            operation: Mutex::new(()),
            monitor: Mutex::new(None),
        }
    }

    pub(crate) fn record(&self) -> PodRecord {
        lock(&self.record).clone()
    }

    /// Changes the record, on disk first.
    pub(crate) fn update(&self, change: impl FnOnce(&mut PodRecord)) -> Result<()> {
        let _writing = lock(&self.writing);
        let mut changed = self.record();
        change(&mut changed);
        self.place.record().write(&changed)?;
        *lock(&self.record) = changed;
        Ok(())
    }

    /// Changes the record in memory: the next [`Self::update`] writes it. For what is found by the pod's id after a crash.
    pub(crate) fn note(&self, change: impl FnOnce(&mut PodRecord)) {
        let _writing = lock(&self.writing);
        change(&mut lock(&self.record));
    }

    /// The sandbox has ended, whether or not the disk has room to say so: a later daemon finds that for itself.
    pub(crate) fn end(&self, stage: Stage) {
        if let Err(error) = self.update(|record| record.stage = stage) {
            tracing::warn!(sandbox = %self.record().config.id, %error, "its end can't be recorded");
            self.note(|record| record.stage = stage);
        }
    }

    pub(crate) fn status(&self) -> SandboxStatus {
        let record = self.record();
        SandboxStatus {
            state: if record.stage == Stage::Ready { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: record.created_at,
            addresses: record.addresses,
            netns: record.netns,
            config: record.config,
        }
    }
}

/// A container's record; it never changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    #[serde(deserialize_with = "read_request")]
    pub(crate) request: ContainerRequest,
    pub(crate) created_at: i64,
    /// As [`PodRecord::damage`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) damage: Option<String>,
}

/// Written before a container is started: what must be killed should it be found without an end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartRecord {
    pub(crate) cgroup: ContainerCgroup,
    pub(crate) at: i64,
    #[serde(default)]
    pub(crate) identity: Option<Identity>,
    /// Its pod, should its own record be damaged.
    #[serde(default)]
    pub(crate) sandbox: Option<SandboxId>,
}

/// How a container ended, for good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndRecord {
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) code: i32,
    pub(crate) reason: ExitReason,
    #[serde(default)]
    pub(crate) message: String,
}

/// Why nobody knows the exit status of a container.
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
    /// What a monitor saw.
    pub(crate) fn seen(exit: &Exit) -> Self {
        let status = exit.wait_status;
        let code = if status & 0x7f == 0 { (status >> 8) & 0xff } else { 128 + (status & 0x7f) };
        let reason = match code {
            // Whatever its status: a child may have been killed, and the first process gone on without it.
            _ if exit.oom_kills > 0 => ExitReason::OomKilled,
            0 => ExitReason::Completed,
            _ => ExitReason::Error,
        };
        let message = String::new();
        Self { started_at: exit.started_at, finished_at: exit.finished_at, code, reason, message }
    }

    /// What is said when it could not be started.
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

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its record, upper and work directories.
    pub(crate) directory: PathBuf,
    pub(crate) place: Place,
    pub(crate) record: ContainerRecord,
    state: Mutex<ContainerState>,
    changed: Condvar,
    identity: Mutex<Option<Identity>>,
    /// Its first process, where it was looked for because its monitor does not answer.
    pub(crate) first: Mutex<Option<Process>>,
    /// How many writes to its log were lost; known from its end on, where its monitor could say it.
    pub(crate) log_writes_dropped: OnceLock<u64>,
    /// Held while it is started or removed.
    pub(crate) operation: Mutex<()>,
    /// Held while its end is recorded.
    pub(crate) ending: Mutex<()>,
}

impl Container {
    pub(crate) fn new(place: Place, record: ContainerRecord, state: ContainerState) -> Self {
        Self {
            directory: place.directory.clone(),
            place,
            record,
            state: Mutex::new(state),
            changed: Condvar::new(),
            identity: Mutex::new(None),
            first: Mutex::new(None),
            log_writes_dropped: OnceLock::new(),
            operation: Mutex::new(()),
            ending: Mutex::new(()),
        }
    }

    pub(crate) fn state(&self) -> ContainerState {
        lock(&self.state).clone()
    }

    /// Who it runs as; known from its start on.
    pub(crate) fn identity(&self) -> Option<Identity> {
        lock(&self.identity).clone()
    }

    pub(crate) fn runs_as(&self, identity: Option<Identity>) {
        *lock(&self.identity) = identity;
    }

    /// The container runs, unless its end is known already.
    pub(crate) fn running(&self, pid: i32, started_at: i64) {
        let mut state = lock(&self.state);
        if matches!(*state, ContainerState::Created { .. } | ContainerState::Running { pid: 0, .. }) {
            *state = ContainerState::Running { pid, started_at };
        }
        self.changed.notify_all();
    }

    /// Whether it is taken to run by its record alone: its monitor has not been heard of yet.
    pub(crate) fn is_only_recorded(&self) -> bool {
        matches!(*lock(&self.state), ContainerState::Running { pid: 0, .. })
    }

    /// The start that is recorded never came to be.
    pub(crate) fn never_started(&self) {
        let mut state = lock(&self.state);
        if matches!(*state, ContainerState::Running { pid: 0, .. }) {
            *state = ContainerState::Created { at: self.record.created_at };
        }
        self.changed.notify_all();
    }

    /// The container has ended; the first end counts. Gives the event when this is it.
    pub(crate) fn ended(&self, end: &EndRecord) -> Option<ContainerEvent> {
        let mut state = lock(&self.state);
        if matches!(*state, ContainerState::Exited { .. }) {
            return None;
        }
        *state = end.state();
        self.changed.notify_all();
        Some(ContainerEvent {
            container: self.record.request.id.clone(),
            sandbox: self.record.request.sandbox.clone(),
            state: end.state(),
        })
    }

    /// Waits for the end; beyond what a clock can count, for as long as it takes.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<ContainerState> {
        let end = Instant::now().checked_add(timeout);
        let mut state = lock(&self.state);
        loop {
            if matches!(*state, ContainerState::Exited { .. }) {
                return Some(state.clone());
            }
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first process, when it runs.
    pub(crate) fn pid(&self, action: &'static str) -> Result<i32> {
        let state = match self.state() {
            ContainerState::Running { pid, .. } => return Ok(pid),
            ContainerState::Created { .. } => "created",
            ContainerState::Exited { .. } => "exited",
        };
        let (kind, id) = ("container", self.record.request.id.to_string());
        Err(Error::WrongState { kind, id, state, action })
    }
}

/// A lock that a panicking thread does not spoil: every change under one is a single assignment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
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
