//! The request that a container is created from, and the container's state.

mod lifecycle;
mod unmonitored;

pub(crate) use lifecycle::check_signal;

use crate::id::{ContainerId, SandboxId};
use crate::{Document, Owner};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The request that a container is created from.
///
/// The specification is taken as [`crate::spec::default_spec`] makes it and the caller fills it: process, mounts
/// (type `bind` with options `ro`, `rw`, `bind`, `rbind`, `rprivate`, `rslave`, `rshared`), devices, resources, masked
/// and read-only paths, sysctls. The runtime adds copies of the pod's `/etc/hosts`, `/etc/resolv.conf` and
/// `/etc/hostname`, and its `/dev/shm`, where the specification mounts nothing there. A host path that is absent is made
/// as a directory when the container starts. Namespaces follow from the sandbox, the user from `user`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRequest {
    /// Its name, unique on the node.
    pub id: ContainerId,
    /// The sandbox it runs in.
    pub sandbox: SandboxId,
    /// The owner, which is its sandbox's.
    pub owner: Owner,
    /// A document of the owner's, kept with it.
    #[serde(default)]
    pub document: Document,
    /// The OCI specification, with the process to run.
    pub spec: Spec,
    /// Its root.
    pub rootfs: RootFs,
    /// The file for a log in the CRI's format; `None` writes no log.
    pub log_path: Option<PathBuf>,
    /// Standard input stays open for clients that attach.
    pub stdin: bool,
    /// The first client's end of input closes it.
    pub stdin_once: bool,
    /// It gets a terminal.
    pub tty: bool,
    /// Paths of the image's VOLUMEs: each gets a directory that begins with what the image has there and dies with the
    /// container.
    pub volumes: Vec<PathBuf>,
    /// The user that the container runs as.
    pub user: User,
    /// The filter of system calls.
    pub seccomp: Seccomp,
    /// Variables whose values are not UTF-8; they override those of the specification.
    #[serde(default)]
    pub raw_env: Vec<(String, Vec<u8>)>,
    /// The pid namespace that it runs in.
    #[serde(default)]
    pub pid: ContainerPid,
}

impl ContainerRequest {
    /// Where something is mounted that may hold the image's kind of files: host paths and volumes.
    pub(crate) fn mounted(&self) -> Vec<PathBuf> {
        let mounts = self.spec.mounts().iter().flatten();
        let binds = mounts.filter(|mount| mount.typ().as_deref().unwrap_or("bind") == "bind");
        binds.map(|mount| mount.destination()).chain(&self.volumes).cloned().collect()
    }
}

/// The pid namespace of a container, which decides the processes that it sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerPid {
    /// The one that the pod's [`crate::PidMode`] sets.
    #[default]
    OfPod,
    /// Its own alone.
    Own,
    /// The namespace of another container of its pod, which has to run when this one is started.
    Target(ContainerId),
}

/// A root file system as data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Lower directories, the topmost first; none gives an empty root.
    pub lowers: Vec<PathBuf>,
    /// The container sees it read-only.
    pub readonly: bool,
    /// Written data need not survive a power cut: nothing waits for a sync at exit.
    pub volatile: bool,
}

/// A user as asked for; names are looked up in the root file system when the container starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `user`, `user:group`, `uid`, `uid:gid`; empty is root.
    pub name: String,
    /// The primary group, in place of the one that `name` resolves to.
    pub group: Option<u32>,
    /// Further groups.
    pub supplementary: Vec<u32>,
    /// Whether /etc/group adds to them.
    pub groups: GroupsPolicy,
}

/// The supplementary groups that the image's /etc/group adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupsPolicy {
    /// The groups that list the user.
    #[default]
    Merge,
    /// Nothing.
    Strict,
}

/// The size of a terminal in cells; nothing of it is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl TerminalSize {
    /// A size that a specification has.
    pub(crate) fn of(size: oci_spec::runtime::Box) -> Self {
        let cells = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
        Self { width: cells(size.width()), height: cells(size.height()) }
    }
}

/// The filter of a container's system calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The default profile.
    #[default]
    RuntimeDefault,
    /// No filter: every system call is allowed.
    Unconfined,
    /// The filter of a given profile.
    Profile(Box<LinuxSeccomp>),
}

/// A container's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// It has not been started.
    Created {
        /// Nanoseconds since the epoch.
        at: i64,
    },
    /// It runs.
    Running {
        /// The pid of its first process; 0 while only its record is known, because its monitor is not adopted yet.
        pid: i32,
        /// Nanoseconds since the epoch.
        started_at: i64,
    },
    /// It has ended.
    Exited {
        /// Nanoseconds since the epoch; 0 when it never ran.
        started_at: i64,
        /// Nanoseconds since the epoch.
        finished_at: i64,
        /// The exit code, or 128 and the signal.
        code: i32,
        /// The cause of the end.
        reason: ExitReason,
        /// More of it, for people; empty where the code and the reason say all.
        message: String,
    },
}

/// Why a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// With code 0.
    Completed,
    /// With another code or by a signal.
    Error,
    /// Its cgroup ran out of memory.
    OomKilled,
    /// Its monitor died and its status with it.
    MonitorLost,
    /// It was to be started and could not be: it has never run and never will.
    StartError,
}

/// An end of a container, as [`crate::Runtime::events`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The container.
    pub container: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Its state after the event.
    pub state: ContainerState,
}
