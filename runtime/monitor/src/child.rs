//! The child between clone and exec: joins and makes namespaces, executes the plan's steps in order, and executes
//! the program.
//!
//! No code in this module and below allocates, parses or decides: all data was prepared by the monitor before the
//! clone.
//!
//! ```text
//! no joins:     monitor ─clone3(new namespaces, cgroup)─► child: enter cgroups, steps, exec
//! joins:        monitor ─clone3(cgroup)─► first: enter cgroups, setns… ─clone3(new, CLONE_PARENT)─► child: wait, steps, exec
//!                                              └─ tells the pid, exits
//! joins a pid   monitor ─clone3(cgroup)─► first: enter cgroups, setns…, unshare(new), steps ─clone(CLONE_PARENT)─► child:
//! namespace:                                   └─ tells the pid, exits                           wait, session, exec
//! ```
//!
//! # Protection from other processes
//! The child begins as a copy of the monitor: root of the host with all its descriptors. Two kinds of attackers
//! matter.
//!
//! An image, a container or a client chooses paths: of mounts, of the working directory, of the program. Close-on-exec is
//! no protection from them, for `execve(2)` resolves its path (and an interpreter's) first. So all descriptors but the
//! report channel and the three streams are closed right after the change of root, or, in a process that has joined a
//! container, before its first step ([`Child::let_go`]). Paths before that are resolved by `openat2(2)` in the container's
//! root without magic links. The channel is a socket and the streams are pipes, a terminal or the container's own
//! /dev/null: no path leads through one of them, and none can be executed.
//!
//! A process of a container may trace what it sees in its pid namespace. Without `CAP_SYS_PTRACE` it can't, because the
//! child is not dumpable ([`identity::stay_opaque`]); nor can the root of a user namespace with it, because the child's
//! memory belongs to the monitor's user namespace until exec. But with it in the monitor's own user namespace the kernel
//! asks for nothing more (`ptrace_may_access`, `cap_ptrace_access_check`): such a process takes descriptors, memory and the
//! process itself. Hence nothing with a privilege is ever in a pid namespace that others are in already. Where the
//! namespace is new, the child is its first process and alone: nothing is executed in a container before its start has
//! succeeded. Where it is joined (exec, a shared namespace), a process outside, which only the host's pid namespace shows,
//! does all steps, gives up ids and capabilities, installs the filter, and only then makes the process inside, which begins
//! its session and executes. A tracer that takes over that process gains no more than the container has. One that takes
//! its channel is not heard ([`crate::launch::Launch::progress`]). One that reads its memory finds a copy of the monitor's:
//! fragments of what the pod's containers have written, have been told and were started with, and nothing of other pods.
//! A proc for a shared namespace is made by its first process (`SendProc`) while it is alone in there.
//!
//! A container on the host's pid namespace that may trace is root on the node by what it asked for.

pub(crate) mod identity;
mod missing;
mod mounts;
mod paths;
mod streams;

use crate::cgroup::Doors;
use crate::launch::prepared::Prepared;
use crate::launch::report;
use crate::launch::report::{Kind, Way};
use crate::sys;
use crate::sys::process::{Side, Vector};
use crate::sys::{Error, Result, file, process, signal};
use slipway_monitor::plan::Step;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The step index of an error that occurred before the first step.
pub(crate) const BEFORE: u32 = u32::MAX;

const NEW_CGROUP: u64 = libc::CLONE_NEWCGROUP.cast_unsigned() as u64;
const NEW_USER: u64 = libc::CLONE_NEWUSER.cast_unsigned() as u64;
const PARENT: u64 = libc::CLONE_PARENT.cast_unsigned() as u64;

/// Everything a child works with.
#[derive(Debug)]
pub(crate) struct Child<'a> {
    /// The plan, decoded and checked.
    pub(crate) prepared: &'a Prepared,
    /// The plan's own descriptors.
    pub(crate) descriptors: &'a [OwnedFd],
    /// Arguments of the program.
    pub(crate) arguments: Vector<'a>,
    /// Its environment.
    pub(crate) environment: Vector<'a>,
    /// Standard streams; none where the child makes a terminal.
    pub(crate) streams: Option<[BorrowedFd<'a>; 3]>,
    /// The channel to the monitor.
    pub(crate) channel: BorrowedFd<'a>,
    /// `/proc` of the monitor's mount namespace.
    pub(crate) proc: BorrowedFd<'a>,
    /// The files by which it enters its cgroups by itself.
    pub(crate) doors: Doors<'a>,
    /// Whether the monitor places the child in its cgroups and says when it has.
    pub(crate) placed_by_monitor: bool,
}

/// The state that changes while the steps are executed.
#[derive(Debug, Default)]
struct Progress {
    /// The container's root, until it is the root of this process.
    root: Option<OwnedFd>,
    /// Whether the root has been changed (`pivot_root(2)`).
    pivoted: bool,
    /// Set where the process inside a joined pid namespace will begin the session: whether that has a terminal.
    session: Option<bool>,
    /// Soft and hard `RLIMIT_NPROC` that the process inside a joined pid namespace will set by itself: by then the
    /// process outside, which has the same user, does not count any more.
    processes: Option<(u64, u64)>,
    /// An empty read-only tmpfs, once one has been attached.
    empty: Option<OwnedFd>,
    /// How many filters are installed.
    filters: usize,
    /// Flags of the next filter.
    filter_flags: u32,
    /// Whether the monitor has been told that exec alone can still fail.
    executing: bool,
}

/// `CLONE_NEW*` flags of the clone that makes the executing process.
pub(crate) fn clone_flags(prepared: &Prepared) -> u64 {
    // The root of a cgroup namespace is the cgroup of its creator, so the child creates it once it has been
    // placed.
    prepared.plan.clone_flags & !NEW_CGROUP
}

impl Child<'_> {
    /// The whole life of the process that the monitor cloned.
    pub(crate) fn run(&self) -> ! {
        if let Err((step, error)) = self.live() {
            // If the channel fails, the monitor is gone and there is nobody to tell.
            let _ = report::tell_failure(self.way(), step, error);
        }
        process::exit_now(127)
    }

    /// The channel, and the number that lets its calls pass the seccomp filter once that is installed.
    fn way(&self) -> Way<'_> {
        Way { channel: self.channel, pass: self.prepared.pass }
    }

    fn live(&self) -> std::result::Result<(), (u32, Error)> {
        let before = |error| (BEFORE, error);
        self.begin().map_err(before)?;
        if !self.prepared.plan.join.0.is_empty() {
            self.join().map_err(before)?;
            let new = clone_flags(self.prepared);
            if self.prepared.joins_processes() {
                process::unshare(new).map_err(before)?;
            } else {
                let side = process::clone3(new | PARENT, None).map_err(before)?;
                self.take_over(side).map_err(before)?;
            }
        }
        if self.prepared.plan.clone_flags & NEW_CGROUP != 0 {
            process::unshare(NEW_CGROUP).map_err(before)?;
        }
        self.execute()
    }

    /// Continues in the new process, once the monitor knows its pid; ends the old one.
    fn take_over(&self, side: Side) -> Result<()> {
        match side {
            Side::Parent(pid) => {
                report::tell_pid(self.way(), pid)?;
                process::exit_now(0)
            }
            Side::Child => report::wait(self.channel, self.prepared.pass),
        }
    }

    /// Does the steps that must precede the entry into any namespace of the container.
    fn begin(&self) -> Result<()> {
        identity::stay_opaque()?;
        if self.placed_by_monitor {
            report::wait(self.channel, 0)?;
        }
        identity::fresh_keyring()?;
        self.doors.enter()?;
        for step in &self.prepared.plan.steps.0 {
            match step {
                // In a user namespace, a process that can't be dumped may not write its own value.
                Step::OomScore { value } => identity::oom_score(self.proc, *value)?,
                Step::Limit { resource, hard, .. } if self.prepared.joins_user_namespace() => {
                    identity::raise_limit(*resource, *hard)?;
                }
                _ => {}
            }
        }
        for (number, stream) in (0..3).zip(self.streams.into_iter().flatten()) {
            file::replace_standard(stream, number)?;
        }
        Ok(())
    }

    fn join(&self) -> Result<()> {
        for join in &self.prepared.plan.join.0 {
            process::setns(self.descriptor(join.descriptor)?, join.kind)?;
            if join.kind == NEW_USER {
                identity::become_root()?;
            }
        }
        identity::stay_opaque()
    }

    /// Closes every descriptor but the channel and the streams, for the container must not reach any other.
    fn let_go(&self, progress: &mut Progress) -> Result<()> {
        // Dropped first: the drop of an `OwnedFd` that `close_all_but` has closed would close its number a second
        // time.
        progress.root = None;
        progress.empty = None;
        file::close_all_but(self.channel)?;
        streams::replace_null(self)
    }

    fn execute(&self) -> std::result::Result<(), (u32, Error)> {
        let mut progress = Progress::default();
        let steps = &self.prepared.plan.steps.0;
        if !steps.iter().any(|step| matches!(step, Step::Root { .. })) {
            self.let_go(&mut progress).map_err(|error| (BEFORE, error))?;
        }
        let mut index = 0;
        for step in steps {
            self.step(step, &mut progress).map_err(|error| (index, error))?;
            index += 1;
        }
        let last = |error| (index, error);
        self.tell_executing(&mut progress).map_err(last)?;
        if self.prepared.joins_processes() {
            let side = process::clone_sibling(self.prepared.pass).map_err(last)?;
            self.take_over(side).map_err(last)?;
            if let Some((soft, hard)) = progress.processes {
                process::set_limit(libc::RLIMIT_NPROC, soft, hard, self.prepared.pass).map_err(last)?;
            }
        }
        if let Some(terminal) = progress.session {
            streams::session(terminal, self.prepared.pass).map_err(last)?;
        }
        Err((index, self.become_program()))
    }

    fn step(&self, step: &Step, progress: &mut Progress) -> Result<()> {
        match step {
            Step::MakeDirectory { .. }
            | Step::MakeFile { .. }
            | Step::MakeLink { .. }
            | Step::MakeDevice { .. }
            | Step::WorkingDirectory { .. } => paths::execute(step, progress.base()),
            Step::Root { .. }
            | Step::Mount { .. }
            | Step::Attach { .. }
            | Step::Mask { .. }
            | Step::ReadOnly { .. }
            | Step::Propagation { .. }
            | Step::Pivot {}
            | Step::SendProc {}
            | Step::ReadOnlyRoot {} => mounts::execute(self, step, progress),
            Step::SyncPoint { point } => self.sync_point(*point),
            Step::Session { terminal } => self.session(*terminal, progress),
            Step::TerminalSize { width, height } => sys::tty::resize(file::standard(0), *width, *height),
            Step::Limit { resource: libc::RLIMIT_NPROC, soft, hard } if self.prepared.joins_processes() => {
                progress.processes = Some((*soft, *hard));
                identity::raise_limit(libc::RLIMIT_NPROC, *hard)
            }
            Step::OwnStreams { uid, gid } => streams::own(*uid, *gid),
            Step::OomScore { .. } => Ok(()),
            Step::Seccomp { .. } => self.seccomp(progress),
            Step::SeccompFlags { flags } => {
                progress.filter_flags = *flags;
                Ok(())
            }
            Step::Sysctl { name, value } => identity::sysctl(self.proc, name, value),
            Step::Loopback {} => process::loopback_up(sys::socket::datagram()?.as_fd()),
            Step::Hostname { .. }
            | Step::Limit { .. }
            | Step::Umask { .. }
            | Step::Bounding { .. }
            | Step::Identity { .. }
            | Step::Capabilities { .. }
            | Step::NoNewPrivileges {} => identity::execute(step),
        }
    }

    fn sync_point(&self, point: u8) -> Result<()> {
        if self.prepared.plan.pause_at & point == 0 {
            return Ok(());
        }
        report::tell(self.channel, Kind::AtSyncPoint, (i32::from(point), 0))?;
        report::wait(self.channel, 0)
    }

    fn session(&self, terminal: bool, progress: &mut Progress) -> Result<()> {
        if terminal && self.streams.is_none() {
            streams::make_terminal(self.channel, progress.pivoted)?;
        }
        if self.prepared.joins_processes() {
            progress.session = Some(terminal);
            return Ok(());
        }
        streams::session(terminal, 0)
    }

    fn seccomp(&self, progress: &mut Progress) -> Result<()> {
        // The filter may forbid a report afterwards.
        self.tell_executing(progress)?;
        let filter = self.prepared.filters.get(progress.filters);
        progress.filters += 1;
        let flags = std::mem::take(&mut progress.filter_flags);
        process::seccomp(filter.ok_or(Error { call: "seccomp", errno: libc::EINVAL })?, flags)
    }

    fn tell_executing(&self, progress: &mut Progress) -> Result<()> {
        if progress.executing {
            return Ok(());
        }
        progress.executing = true;
        // The filter may forbid that call, too.
        signal::restore_all()?;
        report::tell(self.channel, Kind::Executing, (0, 0))
    }

    /// Executes the first program that exists; returns only an error. `EACCES` does not end the search, but is the
    /// error that is returned when no other program is found, as in `execvp(3)`.
    fn become_program(&self) -> Error {
        let mut found = Error { call: "execve", errno: libc::ENOENT };
        for program in &self.prepared.plan.programs.0 {
            let error = process::execve(program, &self.arguments, &self.environment);
            match error.errno {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => found = error,
                _ => return error,
            }
        }
        found
    }

    /// A descriptor by its number in the plan.
    fn descriptor(&self, number: u16) -> Result<BorrowedFd<'_>> {
        let found = self.descriptors.get(usize::from(number));
        found.map(AsFd::as_fd).ok_or(Error { call: "plan's descriptor", errno: libc::EBADF })
    }
}

impl Progress {
    /// The directory that paths are relative to: the container's root, or `None` for `/` in a process that has
    /// joined the container's mount namespace.
    fn base(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd)
    }
}
