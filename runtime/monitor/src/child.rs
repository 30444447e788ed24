//! The child between clone and exec: joins, makes, executes the plan's steps in order, and becomes the program.
//!
//! Nothing in here and below allocates, parses or chooses. All memory is the copy of what the monitor prepared.
//!
//! ```text
//! no joins:   monitor ─clone3(new namespaces, cgroup)─► child: enter cgroups, steps, exec
//! joins:      monitor ─clone3(cgroup)─► first: enter cgroups, setns… ─clone3(new, CLONE_PARENT)─► child: wait, steps, exec
//!                                            └─ tells the pid, exits
//! ```

pub(crate) mod identity;
mod missing;
mod mounts;
mod paths;
mod streams;

use crate::cgroup::Doors;
use crate::launch::prepared::Prepared;
use crate::launch::report;
use crate::launch::report::Kind;
use crate::sys;
use crate::sys::process::{Side, Vector};
use crate::sys::{Error, Result, file, process, signal};
use slipway_monitor::plan::Step;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The index that stands for what comes before the first step.
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
    /// The cgroups that it enters by itself.
    pub(crate) doors: Doors<'a>,
    /// Whether the monitor places the child in its cgroups and says when it has.
    pub(crate) placed_by_monitor: bool,
}

/// What changes while the steps are executed.
#[derive(Debug, Default)]
struct Progress {
    /// The container's root.
    root: Option<OwnedFd>,
    /// An empty read-only tmpfs, once one has been attached.
    empty: Option<OwnedFd>,
    /// How many filters are installed.
    filters: usize,
    /// Flags of the next one.
    filter_flags: u32,
    /// Whether the monitor knows that only exec is left to fail.
    executing: bool,
}

/// Which namespaces the clone that makes the executing process makes.
pub(crate) fn clone_flags(prepared: &Prepared) -> u64 {
    // A cgroup namespace's root is its maker's cgroup, so the child makes it itself once it has been placed.
    prepared.plan.clone_flags & !NEW_CGROUP
}

impl Child<'_> {
    /// The whole life of the process that the monitor cloned.
    pub(crate) fn run(&self) -> ! {
        if let Err((step, error)) = self.live() {
            // A channel that does not take it has no reader left to tell.
            let _ = report::tell_failure(self.channel, step, error);
        }
        process::exit_now(127)
    }

    fn live(&self) -> std::result::Result<(), (u32, Error)> {
        let before = |error| (BEFORE, error);
        self.begin().map_err(before)?;
        if !self.prepared.plan.join.0.is_empty() {
            self.join().map_err(before)?;
            match process::clone3(clone_flags(self.prepared) | PARENT, None).map_err(before)? {
                Side::Parent(pid) => {
                    report::tell(self.channel, Kind::Pid, (pid, 0)).map_err(before)?;
                    process::exit_now(0);
                }
                Side::Child => report::wait(self.channel).map_err(before)?,
            }
        }
        if self.prepared.plan.clone_flags & NEW_CGROUP != 0 {
            process::unshare(NEW_CGROUP).map_err(before)?;
        }
        self.execute()
    }

    /// What must happen before the process is in any namespace of the container's.
    fn begin(&self) -> Result<()> {
        process::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
        if self.placed_by_monitor {
            report::wait(self.channel)?;
        }
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
        Ok(())
    }

    fn execute(&self) -> std::result::Result<(), (u32, Error)> {
        let mut progress = Progress::default();
        let mut index = 0;
        for step in &self.prepared.plan.steps.0 {
            self.step(step, &mut progress).map_err(|error| (index, error))?;
            index += 1;
        }
        let last = |error| (index, error);
        self.tell_executing(&mut progress).map_err(last)?;
        signal::restore_all().map_err(last)?;
        file::close_all_on_exec().map_err(last)?;
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
            | Step::ReadOnlyRoot {} => mounts::execute(self, step, progress),
            Step::SyncPoint { point } => self.sync_point(*point),
            Step::Session { terminal } => streams::session(self, *terminal, progress.base()),
            Step::TerminalSize { width, height } => sys::tty::resize(file::standard(0), *width, *height),
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
        report::wait(self.channel)
    }

    fn seccomp(&self, progress: &mut Progress) -> Result<()> {
        // The filter may forbid to speak afterwards.
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
        report::tell(self.channel, Kind::Executing, (0, 0))
    }

    /// Executes the first program that exists. One that may not be executed does not end the search, but is what is
    /// told when nothing else is found, as in `execvp(3)`.
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
    /// What paths are relative to: the container's root, or, in a process that joined its mount namespace, `/`.
    fn base(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd)
    }
}
