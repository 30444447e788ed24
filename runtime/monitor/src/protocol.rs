//! Requests and replies between a daemon and one monitor, over `SOCK_SEQPACKET`: one message a packet.
//!
//! A connection is either control (any number of requests, each answered in order) or, after `Exec` or `Attach`, a
//! session whose end ends it. Descriptors come ahead of the request that uses them, in [`Request::Descriptors`]
//! packets of at most [`BATCH`], and are numbered in their order of arrival.
//!
//! ```text
//!            Attach (waits)                    Stop: signal, deadline armed ──► deadline: cgroup killed
//!   unknown ───────────────► awaited ─┐                  ▲
//!      │                              ├─ Start ──► running ──► waited ──► counted ──► drained ──► filed ──► told
//!      └──────────────────────────────┘              │         status     oom kills   streams    rename    Exited
//!                                                    ├─ Exec ──► session: Started, Exited; its end kills it
//!                                                    └─ Signal, Resize, ReopenLog, Stop: answered at once
//! ```
//! Both sides begin with `Hello` and the version that they speak; what follows has the form of the lower one.
//!
//! A new daemon adopts by connecting and asking `Hello`, `List` and `Watch`; nothing else is kept on its side of the
//! socket. `Shutdown` ends the monitor once no container runs.

use crate::message;
use crate::message::Message;
use crate::wire::List;

/// The version that this library speaks. It speaks the one before, too: a daemon and a monitor use the lower one of theirs.
///
/// Version 2 brought [`Request::Keep`], the steps [`TerminalSize`](crate::plan::Step::TerminalSize) and
/// [`SendProc`](crate::plan::Step::SendProc), and plans that are executed outside of the pid namespace that they join.
/// Version 3 brought messages whose fields carry their lengths ([`crate::message`]).
pub const VERSION: u16 = 3;
/// The oldest version that this library speaks.
pub const OLDEST: u16 = VERSION - 1;

/// The version for a connection with a peer of another version; none where there is none that both speak.
#[must_use]
pub fn agreed(theirs: u16) -> Option<u16> {
    Some(theirs.min(VERSION)).filter(|version| *version >= OLDEST)
}

/// Descriptors in one packet (the kernel's `SCM_MAX_FD` is 253).
pub const BATCH: usize = 128;
/// Descriptors that may wait for one request: the plan's, of which each mount is one, and what comes with them.
pub const DESCRIPTORS: usize = 8192;
/// The largest packet; bigger contents travel as a sealed memfd.
pub const PACKET: usize = 64 * 1024;

/// Bits that name standard streams.
pub mod stream {
    /// Standard input.
    pub const STDIN: u8 = 1;
    /// Standard output.
    pub const STDOUT: u8 = 2;
    /// Standard error.
    pub const STDERR: u8 = 4;
}

message! {
    /// One line of a uid or gid map.
    pub struct IdRange {
        /// First id inside.
        pub inside: u32,
        /// First id outside.
        pub outside: u32,
        /// How many.
        pub count: u32,
    }
}

message! {
    /// A kernel parameter to write inside fresh namespaces.
    pub struct Parameter {
        /// Below `/proc/sys`, with slashes.
        pub name: String,
        /// As written.
        pub value: String,
    }
}

message! {
    /// A request of the daemon. The numbers are fixed for good.
    pub enum Request {
        /// First on every connection; answered by [`Reply::Hello`]. Without it a connection has the oldest version.
        Hello = 1 {
            /// The daemon's version.
            version: u16
        },
        /// Descriptors for the next request, carried as `SCM_RIGHTS`. Not answered.
        Descriptors = 2 {
            /// How many this packet carries.
            count: u16
        },
        /// Once, by the daemon that started the monitor. Descriptors: the pod's state directory, the small mount namespace
        /// to join, and the pod's network namespace to join, if it exists already.
        Setup = 3 {
            /// The pod's id, for messages.
            pod: String
        },
        /// Make the pod's namespaces in a short-lived child and send them back, in the order of the bits of `kinds`
        /// from the lowest. With a user namespace (`CLONE_NEWUSER`) that one is made first and owns the others. The monitor
        /// joins the pod's IPC, UTS and network namespaces itself, so that it is a process by which tools enter the pod.
        Namespaces = 4 {
            /// `CLONE_NEW*` flags.
            kinds: u64,
            /// Empty without `CLONE_NEWUSER`.
            uids: List<IdRange>,
            /// Empty without `CLONE_NEWUSER`.
            gids: List<IdRange>,
            /// The uts namespace's name, when one is made.
            hostname: String,
            /// Written by the child inside the namespaces.
            sysctls: List<Parameter>
        },
        /// Start a container. Descriptors: see [`Start`].
        Start = 5 {
            /// The container and its settings.
            start: Start
        },
        /// Let a child that waits at a sync point go on. Answered by [`Reply::Done`]; what follows is told on the
        /// connection of the start.
        Continue = 6 {
            /// The container.
            container: String
        },
        /// Run a process in a container: turns the connection into a session. Descriptors: the plan as a sealed memfd,
        /// the plan's own, and without a terminal standard input, output and error, last.
        Exec = 7 {
            /// The container, which must run.
            container: String,
            /// Whether the process gets a terminal; its master is sent back with [`Reply::Started`].
            terminal: bool,
            /// After so many milliseconds the session is killed; 0 is never.
            deadline_ms: u64
        },
        /// Follow a container's streams: turns the connection into a session. Allowed before `Start`.
        Attach = 8 {
            /// The container.
            container: String,
            /// Bits of [`stream`].
            streams: u8
        },
        /// Bytes for standard input of an attached container; empty bytes end this client's input, which closes the
        /// container's where it was started with `stdin_once`. Answered only when refused.
        Input = 9 {
            /// At most [`PACKET`] less 16 bytes.
            bytes: Vec<u8>
        },
        /// Change a terminal's size, of the container or of the session that sends it.
        Resize = 10 {
            /// Empty within an exec session.
            container: String,
            /// Columns.
            width: u16,
            /// Rows.
            height: u16
        },
        /// Send the signal now, and kill the container's whole cgroup after the grace. A later request with an earlier
        /// deadline shortens it. The deadline is in the state directory before the answer.
        Stop = 11 {
            /// The container.
            container: String,
            /// A signal's number.
            signal: i32,
            /// Grace in milliseconds; 0 kills at once.
            grace_ms: u64
        },
        /// Send a signal to the container's first process.
        Signal = 12 {
            /// The container.
            container: String,
            /// A signal's number.
            signal: i32
        },
        /// Go on logging into the file whose descriptor comes along.
        ReopenLog = 13 {
            /// The container.
            container: String
        },
        /// Every container that the monitor knows: answered by [`Reply::Containers`].
        List = 14 {},
        /// Send [`Reply::Exited`] on this connection for every exit from now on.
        Watch = 15 {},
        /// Forget an exited container: its descriptors are closed, its exit file is left to the daemon. Of one that never
        /// ran, those who are attached are told that it has ended, with code [`NEVER_RAN`].
        Forget = 16 {
            /// The container.
            container: String
        },
        /// End the monitor. Refused while a container runs.
        Shutdown = 17 {},
        /// Keep the descriptors that come along (sockets that reserve host ports) until the monitor ends or another
        /// request of the same name takes their place; without descriptors it lets go of them.
        Hold = 18 {
            /// The daemon's name for them.
            name: String
        },
        /// Give up all capabilities but these, for good, as what the monitor starts outside of a user namespace has them
        /// at most. Every one of them is held already.
        Keep = 19 {
            /// The permitted and the bounding set: one bit a capability.
            permitted: u64,
            /// The effective set, in the permitted one: what the monitor does its own work with.
            effective: u64
        },
    }
}

message! {
    /// The kind of the directories of a cgroup.
    #[derive(Copy)]
    pub enum Hierarchy {
        /// Of version 1, one a hierarchy: a child writes itself into each `tasks`.
        Legacy = 0 {},
        /// Of version 2: a child is born there (`CLONE_INTO_CGROUP`), and all are killed at once (`cgroup.kill`).
        Unified = 1 {},
        /// Of version 2 where the kernel or the configuration denies that: a child writes itself into `cgroup.procs`, and
        /// processes are killed one by one.
        UnifiedByHand = 2 {},
    }
}

message! {
    /// A container to start. Descriptors, in this order: the plan as a sealed memfd; the log file if `log`; the cgroup
    /// directories, `cgroups` of them; then the plan's own, which the plan numbers from 0.
    pub struct Start {
        /// The container's id.
        pub container: String,
        /// Whether a log file comes along.
        pub log: bool,
        /// One directory on cgroup v2; on v1 one for each hierarchy.
        pub cgroups: u16,
        /// The kind of those, and how processes in them are killed.
        pub hierarchy: Hierarchy,
        /// Whether standard input stays open for attached clients.
        pub stdin: bool,
        /// Whether the first client's end of input closes it for good.
        pub stdin_once: bool,
        /// Whether the container gets a terminal instead of pipes.
        pub terminal: bool,
        /// Whether the end of the first process kills the rest of the cgroup (a shared or the host's pid namespace).
        pub kill_rest: bool,
    }
}

/// The exit code of a container that was forgotten before it ran.
pub const NEVER_RAN: i32 = 128;

message! {
    /// How a container or a process ended.
    pub struct Exit {
        /// As `wait(2)` gives it.
        pub wait_status: i32,
        /// Kills for memory counted in its cgroup.
        pub oom_kills: u64,
        /// Nanoseconds since the epoch.
        pub started_at: i64,
        /// Nanoseconds since the epoch.
        pub finished_at: i64,
        /// Whether a deadline of the monitor's ended it.
        pub timed_out: bool,
    }
}

message! {
    /// A container as a monitor knows it.
    pub struct Known {
        /// Its id.
        pub container: String,
        /// Its first process, in the daemon's pid namespace; 0 before it starts.
        pub pid: i32,
        /// Nanoseconds since the epoch; 0 before it starts.
        pub started_at: i64,
        /// When it has ended.
        pub exit: Option<Exit>,
    }
}

message! {
    /// A reply of the monitor. The numbers are fixed for good.
    pub enum Reply {
        /// The version of the connection.
        Hello = 1 {
            /// As [`agreed`]; the monitor's own where there is none that both speak.
            version: u16,
            /// Its pid.
            pid: i32,
            /// The pod it serves; empty before `Setup`.
            pod: String
        },
        /// Done; descriptors of `Namespaces` come along.
        Done = 2 {},
        /// The process runs (its exec has succeeded). The master of a session's terminal comes along, and to a start the
        /// mount of a plan's `SendProc`.
        Started = 3 {
            /// In the daemon's pid namespace.
            pid: i32,
            /// Nanoseconds since the epoch.
            started_at: i64
        },
        /// The child waits at a sync point.
        AtSyncPoint = 4 {
            /// The container.
            container: String,
            /// One bit of [`crate::plan::sync_point`].
            point: u8,
            /// The child; where the plan joins a pid namespace, not yet the process that will execute.
            pid: i32
        },
        /// A container or a session's process has ended. Attached clients are told after the last output.
        Exited = 5 {
            /// The container.
            container: String,
            /// How.
            exit: Exit
        },
        /// Output of an attached container.
        Output = 6 {
            /// One bit of [`stream`].
            stream: u8,
            /// The bytes.
            bytes: Vec<u8>
        },
        /// The answer to `List`.
        Containers = 7 {
            /// In no order.
            containers: List<Known>
        },
        /// A step of a child failed; nothing of it is left.
        StepFailed = 8 {
            /// Which step of the plan; the count of steps for what follows them (exec), `u32::MAX` for what comes
            /// before the first (placing in the cgroup, joining, cloning).
            step: u32,
            /// The call that failed, as `openat2`.
            what: String,
            /// The system's error number.
            errno: i32
        },
        /// The request can't be served.
        Refused = 9 {
            /// Why, in a sentence.
            why: String
        },
    }
}

impl Message for Request {}
impl Message for Reply {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_encoding_in_each_version() {
        let request = Request::Stop { container: "c1".into(), signal: 15, grace_ms: 1000 };
        for version in [OLDEST, VERSION] {
            assert_eq!(Request::of_bytes(&request.to_bytes(version), version), Ok(request.clone()));
        }
    }

    #[test]
    fn an_unknown_request_is_malformed() {
        assert!(Request::of_bytes(&[250], OLDEST).is_err());
        assert!(Request::of_bytes(&[250], VERSION).is_err());
    }

    #[test]
    fn a_greeting_is_understood_across_versions_and_may_grow() {
        let hello = Request::Hello { version: 9 };
        let mut bytes = hello.to_bytes(9);
        assert_eq!(bytes, hello.to_bytes(OLDEST));
        bytes.push(1);
        assert_eq!(Request::of_bytes(&bytes, OLDEST), Ok(hello));
    }

    #[test]
    fn the_lower_version_is_agreed_on() {
        assert_eq!(agreed(VERSION + 1), Some(VERSION));
        assert_eq!(agreed(OLDEST), Some(OLDEST));
        assert_eq!(agreed(OLDEST - 1), None);
    }
}
