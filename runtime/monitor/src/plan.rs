//! The launch plan: a flat program that a fresh child runs from its clone to its exec, with everything decided.
//!
//! The daemon compiles it from an OCI specification, the monitor decodes it before it clones, and the child executes
//! the steps in order without allocating, parsing or choosing. A step that fails ends the child and names itself by
//! its index. Descriptors are numbered by their place in the batch that was sent with the plan. Paths that begin a
//! mount are relative to the container's root and resolved with `openat2(2)` and `RESOLVE_IN_ROOT`, so that a link in
//! an image never leads outside.
//!
//! After [`Step::Pivot`], or from the first step of a plan without a root, a child has no descriptor but its report
//! channel and its three streams: steps that need others come before. A plan that joins a pid namespace, where others
//! may look on, is executed by a process outside of it; only the one that begins the session and executes is inside.

use crate::wire;
use crate::wire::List;
use std::ffi::CString;

/// Bits of [`Plan::pause_at`]: where the child waits for [`crate::protocol::Request::Continue`].
pub mod sync_point {
    /// Namespaces are made and joined; nothing is mounted.
    pub const NAMESPACES: u8 = 1;
    /// Mounts are done; the root has not been changed.
    pub const MOUNTS: u8 = 2;
    /// Everything is done but exec.
    pub const EXEC: u8 = 4;
}

/// Files below `/proc` that something may be mounted on: what lxcfs and its like show in their place, as runc allows it.
/// Nothing else may stand for a part of proc, for what is written there tells the kernel how to confine a process.
pub const MOUNTED_IN_PROC: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

wire! {
    /// All that a child does between clone and exec.
    pub struct Plan {
        /// `CLONE_NEW*` flags of namespaces to create with the clone.
        pub clone_flags: u64,
        /// Namespaces to join before the clone's own are made, in order: descriptor numbers and their `CLONE_NEW*`.
        pub join: List<Join>,
        /// Steps in order.
        pub steps: List<Step>,
        /// Sync points at which the child waits, see [`sync_point`].
        pub pause_at: u8,
        /// Environment, `NAME=value` each.
        pub environment: List<CString>,
        /// Arguments, the program's name first.
        pub arguments: List<CString>,
        /// Paths to try in order; the first that exists is executed.
        pub programs: List<CString>,
    }
}

wire! {
    /// A namespace to enter.
    pub struct Join {
        /// The descriptor's number.
        pub descriptor: u16,
        /// The one `CLONE_NEW*` flag of its kind.
        pub kind: u64,
    }
}

wire! {
    /// A parameter of `fsconfig(2)`; an absent value sets a flag.
    pub struct Parameter {
        /// Its key, as `size` or `mode`.
        pub key: CString,
        /// Its value.
        pub value: Option<CString>,
    }
}

wire! {
    /// One step of a child. Numbers are fixed. A monitor refuses a plan with a step or a field that it does not know: to
    /// skip one could leave a process less confined.
    pub enum Step {
        /// Attach the detached root mount at the private place and make it the base of all later paths.
        Root = 1 {
            /// The mount's descriptor.
            descriptor: u16
        },
        /// Make a directory, unless one is there. Parents come as steps of their own.
        MakeDirectory = 2 {
            /// Below the root.
            path: CString,
            /// Permission bits.
            mode: u32
        },
        /// Make an empty file to mount on, unless something is there.
        MakeFile = 3 {
            /// Below the root.
            path: CString,
            /// Permission bits.
            mode: u32
        },
        /// Make a symbolic link, unless something is there.
        MakeLink = 4 {
            /// Below the root.
            path: CString,
            /// The path in it.
            target: CString
        },
        /// Make a device node; it replaces nothing.
        MakeDevice = 5 {
            /// Below the root.
            path: CString,
            /// Type and permission bits as in `mknod(2)`.
            mode: u32,
            /// As `makedev(3)`.
            device: u64,
            /// Owner.
            uid: u32,
            /// Group.
            gid: u32
        },
        /// Mount a new file system of this kind.
        Mount = 6 {
            /// `proc`, `tmpfs`, …
            kind: CString,
            /// Below the root.
            target: CString,
            /// `MOUNT_ATTR_*` bits.
            attributes: u64,
            /// Parameters of the file system.
            parameters: List<Parameter>
        },
        /// Attach a detached mount tree whose attributes are already set.
        Attach = 7 {
            /// Its descriptor.
            descriptor: u16,
            /// Below the root.
            target: CString
        },
        /// Hide a path: a directory by an empty tmpfs, anything else by `file` (a clone of /dev/null), both read-only. An
        /// absent path is nothing to hide.
        Mask = 8 {
            /// Below the root.
            path: CString,
            /// The descriptor of /dev/null, opened for the container.
            file: u16
        },
        /// Make a path read-only, with what is mounted below it. An absent path is skipped.
        ReadOnly = 9 {
            /// Below the root.
            path: CString
        },
        /// Write a kernel parameter of a namespace that the child has made or joined.
        Sysctl = 10 {
            /// Below `/proc/sys`, with slashes.
            name: CString,
            /// As written.
            value: Vec<u8>
        },
        /// Name the host (`sethostname(2)`).
        Hostname = 11 {
            /// At most 64 bytes.
            name: Vec<u8>
        },
        /// The reserved place of a sync point; the child waits here when the plan's `pause_at` has the bit.
        SyncPoint = 12 {
            /// One bit of [`sync_point`].
            point: u8
        },
        /// Set the propagation of the root (`MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, with `MS_REC`).
        Propagation = 13 {
            /// Mount flags.
            flags: u64
        },
        /// `pivot_root(2)` into the root and detach the old one.
        Pivot = 14 {},
        /// Make the root mount itself read-only.
        ReadOnlyRoot = 15 {},
        /// `setrlimit(2)`. A hard limit above the monitor's is raised before a user namespace is entered.
        Limit = 16 {
            /// `RLIMIT_*`.
            resource: u32,
            /// The soft limit.
            soft: u64,
            /// The hard limit.
            hard: u64
        },
        /// Write `oom_score_adj`; where the kernel refuses to lower it, the value stays (`EACCES` is no failure). It is
        /// done before any namespace is entered, whatever its place among the steps.
        OomScore = 17 {
            /// From -1000 to 1000.
            value: i32
        },
        /// Begin a session; with a terminal, make one for the three streams and its slave the controlling one. In a plan
        /// that joins a pid namespace the session begins right before exec, whatever the step's place.
        Session = 18 {
            /// Whether standard input is a terminal.
            terminal: bool
        },
        /// `umask(2)`.
        Umask = 19 {
            /// Bits to clear.
            mask: u32
        },
        /// Change the working directory, inside the new root, after verifying that it is inside it.
        WorkingDirectory = 20 {
            /// Absolute.
            path: CString
        },
        /// Drop every capability outside of these from the bounding set.
        Bounding = 21 {
            /// One bit a capability.
            set: u64
        },
        /// `setgroups(2)`, then all three group ids, then all three user ids, keeping capabilities.
        Identity = 22 {
            /// User.
            uid: u32,
            /// Group.
            gid: u32,
            /// Supplementary groups.
            groups: List<u32>
        },
        /// Set the thread's capability sets; ambient after the others.
        Capabilities = 23 {
            /// Effective.
            effective: u64,
            /// Permitted.
            permitted: u64,
            /// Inheritable.
            inheritable: u64,
            /// Ambient.
            ambient: u64
        },
        /// Set `no_new_privs`.
        NoNewPrivileges = 24 {},
        /// Install a filter: an array of `struct sock_filter`.
        Seccomp = 25 {
            /// Its bytes, a multiple of eight.
            program: Vec<u8>
        },
        /// Give the files behind standard streams to the container's user (`fchown(2)`), where they are pipes or a pty.
        OwnStreams = 26 {
            /// User.
            uid: u32,
            /// Group.
            gid: u32
        },
        /// Bring the loopback link of the child's network namespace up.
        Loopback = 27 {},
        /// Give the terminal that is standard input a size, after [`Step::Session`].
        TerminalSize = 28 {
            /// Columns.
            width: u16,
            /// Rows.
            height: u16
        },
        /// Flags of the filter that the next [`Step::Seccomp`] installs (`seccomp(2)`).
        SeccompFlags = 29 {
            /// `SECCOMP_FILTER_FLAG_*`.
            flags: u32
        },
        /// Make a proc of the child's pid namespace and send it to the daemon, detached, with the answer to the start.
        /// From version 2 of the protocol on.
        SendProc = 30 {},
    }
}

impl Plan {
    /// The plan for a monitor of this version: without the steps that it does not know and that merely add convenience.
    ///
    /// # Errors
    /// A step without which the process would be less confined, or not what was asked for.
    pub fn for_version(mut self, version: u16) -> Result<Self, Step> {
        self.steps.0.retain(|step| step.since() <= version || !step.is_convenience());
        match self.steps.0.iter().find(|step| step.since() > version) {
            Some(step) => Err(step.clone()),
            None => Ok(self),
        }
    }
}

impl Step {
    /// The version of the protocol that brought the step.
    #[must_use]
    pub fn since(&self) -> u16 {
        match self {
            Self::Root { .. }
            | Self::MakeDirectory { .. }
            | Self::MakeFile { .. }
            | Self::MakeLink { .. }
            | Self::MakeDevice { .. }
            | Self::Mount { .. }
            | Self::Attach { .. }
            | Self::Mask { .. }
            | Self::ReadOnly { .. }
            | Self::Sysctl { .. }
            | Self::Hostname { .. }
            | Self::SyncPoint { .. }
            | Self::Propagation { .. }
            | Self::Pivot {}
            | Self::ReadOnlyRoot {}
            | Self::Limit { .. }
            | Self::OomScore { .. }
            | Self::Session { .. }
            | Self::Umask { .. }
            | Self::WorkingDirectory { .. }
            | Self::Bounding { .. }
            | Self::Identity { .. }
            | Self::Capabilities { .. }
            | Self::NoNewPrivileges {}
            | Self::Seccomp { .. }
            | Self::OwnStreams { .. }
            | Self::Loopback {} => 1,
            Self::TerminalSize { .. } | Self::SeccompFlags { .. } | Self::SendProc {} => 2,
        }
    }

    /// Whether a process is as confined without the step, and does the same.
    #[must_use]
    pub fn is_convenience(&self) -> bool {
        matches!(self, Self::TerminalSize { .. })
    }

    /// The step in the words of an error: its verb and its path.
    #[must_use]
    pub fn describe(&self) -> String {
        let (verb, path) = match self {
            Self::MakeDirectory { path, .. } => ("make directory", path),
            Self::MakeFile { path, .. } => ("make file", path),
            Self::MakeLink { path, .. } => ("make link", path),
            Self::MakeDevice { path, .. } => ("make device", path),
            Self::Mount { target, .. } | Self::Attach { target, .. } => ("mount on", target),
            Self::Mask { path, .. } => ("mask", path),
            Self::ReadOnly { path } => ("make read-only", path),
            Self::Sysctl { name, .. } => ("write kernel parameter", name),
            Self::WorkingDirectory { path } => ("enter working directory", path),
            other => {
                let shown = format!("{other:?}");
                return shown.split([' ', '{']).next().unwrap_or_default().to_lowercase();
            }
        };
        format!("{verb} /{}", path.to_string_lossy().trim_start_matches('/'))
    }

    /// Whether the child still has to have the descriptors that came with the plan, or directories that it has opened:
    /// such a step comes before the change of root, after which they are closed.
    #[must_use]
    pub fn needs_descriptors(&self) -> bool {
        match self {
            Self::Root { .. }
            | Self::MakeDirectory { .. }
            | Self::MakeFile { .. }
            | Self::MakeLink { .. }
            | Self::MakeDevice { .. }
            | Self::Mount { .. }
            | Self::Attach { .. }
            | Self::Mask { .. }
            | Self::ReadOnly { .. }
            | Self::Sysctl { .. }
            | Self::Propagation { .. }
            | Self::Pivot {}
            | Self::SendProc {} => true,
            Self::Hostname { .. }
            | Self::SyncPoint { .. }
            | Self::ReadOnlyRoot {}
            | Self::Limit { .. }
            | Self::OomScore { .. }
            | Self::Session { .. }
            | Self::Umask { .. }
            | Self::WorkingDirectory { .. }
            | Self::Bounding { .. }
            | Self::Identity { .. }
            | Self::Capabilities { .. }
            | Self::NoNewPrivileges {}
            | Self::Seccomp { .. }
            | Self::SeccompFlags { .. }
            | Self::OwnStreams { .. }
            | Self::TerminalSize { .. }
            | Self::Loopback {} => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(steps: Vec<Step>) -> Plan {
        Plan {
            clone_flags: 0,
            join: List::default(),
            steps: List(steps),
            pause_at: 0,
            environment: List::default(),
            arguments: List::default(),
            programs: List::default(),
        }
    }

    #[test]
    fn an_older_monitor_gets_a_plan_without_conveniences_and_never_one_that_confines_less() {
        let (session, size) =
            (Step::Session { terminal: true }, Step::TerminalSize { width: 80, height: 24 });
        let steps = || vec![session.clone(), size.clone()];
        assert_eq!(plan(steps()).for_version(2), Ok(plan(steps())));
        assert_eq!(plan(steps()).for_version(1), Ok(plan(vec![session.clone()])));
        let flags = Step::SeccompFlags { flags: 2 };
        assert_eq!(plan(vec![session, flags.clone()]).for_version(1), Err(flags));
    }
}
