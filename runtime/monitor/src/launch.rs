//! A launch: from the clone until the exec has succeeded or all of its processes are gone.
//!
//! ```text
//! begin ──► waiting ──AtSyncPoint──► paused ──Continue──► waiting ──Executing, then the channel's end──► started
//!              └──────────────── Failed, or the end without Executing ──► failing ──all reaped──► gone
//! ```

mod passage;
pub(crate) mod prepared;
pub(crate) mod report;

use crate::cgroup::Cgroup;
use crate::child;
use crate::child::Child;
use crate::sys;
use crate::sys::process::{Side, Vector};
use crate::sys::socket::Rights;
use crate::sys::{process, socket};
use prepared::Prepared;
use report::Report;
use slipway_monitor::protocol::Reply;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many reports are read before the monitor turns to other events.
const AT_ONCE: usize = 64;

/// The inputs of a launch.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// The plan.
    pub(crate) prepared: &'a Prepared,
    /// The plan's own descriptors.
    pub(crate) descriptors: &'a [OwnedFd],
    /// Standard streams; none where the child makes a terminal.
    pub(crate) streams: Option<[BorrowedFd<'a>; 3]>,
    /// The cgroup in which the child is placed.
    pub(crate) cgroup: &'a Cgroup,
    /// The container's first process, for a process that joins it; else 0.
    pub(crate) init: i32,
    /// `/proc` of the monitor's mount namespace.
    pub(crate) proc: BorrowedFd<'a>,
}

/// The failure of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    step: u32,
    what: String,
    errno: i32,
}

impl Failure {
    pub(crate) fn reply(self) -> Reply {
        Reply::StepFailed { step: self.step, what: self.what, errno: self.errno }
    }
}

impl From<sys::Error> for Failure {
    fn from(error: sys::Error) -> Self {
        Self { step: child::BEFORE, what: error.call.into(), errno: error.errno }
    }
}

/// The progress of a launch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No change.
    Waiting,
    /// The child waits at this sync point.
    AtSyncPoint(u8),
    /// The exec has succeeded.
    Started,
    /// A step failed or the child ended.
    Failed(Failure),
}

/// A child on its way to exec.
#[derive(Debug)]
pub(crate) struct Launch {
    channel: OwnedFd,
    /// The pid of the process that was cloned. Reports are taken from it until the pid of another has come.
    cloned: i32,
    /// The same pid until it is reaped, then 0.
    first: i32,
    /// The process that executes; 0 until it is known.
    pid: i32,
    /// Whether the plan's steps are done, so that exec alone can still fail.
    executing: bool,
    terminal: Option<OwnedFd>,
    mount: Option<OwnedFd>,
}

impl Launch {
    /// Clones the child and places it.
    pub(crate) fn begin(order: &Order<'_>) -> Result<Self, Failure> {
        let (channel, theirs) = socket::pair()?;
        socket::ask_for_senders(channel.as_fd())?;
        let joins = !order.prepared.plan.join.0.is_empty();
        let flags = if joins { 0 } else { child::clone_flags(order.prepared) };
        let mut child = Child {
            prepared: order.prepared,
            descriptors: order.descriptors,
            arguments: Vector::new(&order.prepared.plan.arguments.0),
            environment: Vector::new(&order.prepared.plan.environment.0),
            streams: order.streams,
            channel: theirs.as_fd(),
            proc: order.proc,
            doors: order.cgroup.doors(),
            placed_by_monitor: false,
        };
        let mut side = process::clone3(flags, order.cgroup.unified());
        // The cgroup refuses `CLONE_INTO_CGROUP`: the monitor moves the child by hand.
        if matches!(side, Err(error) if matches!(error.errno, libc::EBADF | libc::EBUSY | libc::EOPNOTSUPP)) {
            child.placed_by_monitor = true;
            side = process::clone3(flags, None);
        }
        let pid = match side? {
            Side::Child => child.run(),
            Side::Parent(pid) => pid,
        };
        let placed_by_monitor = child.placed_by_monitor;
        drop(child);
        drop(theirs);
        let executes = if joins { 0 } else { pid };
        let launch = Self {
            channel,
            cloned: pid,
            first: pid,
            pid: executes,
            executing: false,
            terminal: None,
            mount: None,
        };
        if placed_by_monitor {
            launch.place(order)?;
        }
        Ok(launch)
    }

    /// Moves the child into its cgroup, and kills it if that fails.
    fn place(&self, order: &Order<'_>) -> Result<(), Failure> {
        let placed = order.cgroup.place(self.first, order.init, order.proc);
        placed.and_then(|()| report::go(self.channel.as_fd())).map_err(|error| {
            // The child only waits for a message and can't hang, so this wait is short.
            let _ = process::kill(self.first, libc::SIGKILL);
            let _ = process::wait_for(self.first);
            Failure::from(error)
        })
    }

    /// The channel, for polling.
    pub(crate) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// The pid of the process that executes the program or, while it is not known, of the one that executes the
    /// steps.
    pub(crate) fn pid(&self) -> i32 {
        if self.pid == 0 { self.first } else { self.pid }
    }

    /// The mount that the child has made for the daemon.
    pub(crate) fn take_mount(&mut self) -> Option<OwnedFd> {
        self.mount.take()
    }

    /// The master of the child's terminal, once the child has sent it.
    pub(crate) fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Lets the child continue from its sync point.
    pub(crate) fn go_on(&self) -> sys::Result<()> {
        report::go(self.channel.as_fd())
    }

    /// Returns the next report of the process that may send one now; `None` if there is none yet.
    ///
    /// A container that may trace can take the channel from a process that has joined its pid namespace, or send
    /// through that process. Reports of other senders are ignored, and of that process all but a failure; a flood
    /// is read [`AT_ONCE`] packets at a time.
    fn next(&mut self) -> sys::Result<Option<Report>> {
        for _ in 0..AT_ONCE {
            let rights = if self.executing { Rights::Dropped } else { Rights::Taken };
            let Some(told) = report::read(self.channel.as_fd(), libc::MSG_DONTWAIT, rights)? else {
                return Ok(None);
            };
            let speaker = if self.pid == 0 { self.cloned } else { self.pid };
            let fits = match &told.report {
                Report::End => return Ok(Some(Report::End)),
                Report::Failed { .. } => true,
                Report::Pid(_) => self.pid == 0,
                Report::AtSyncPoint(_) | Report::Terminal(_) | Report::Mount(_) | Report::Executing => {
                    !self.executing
                }
            };
            if fits && told.sender == Some(speaker) {
                return Ok(Some(told.report));
            }
        }
        Ok(None)
    }

    /// Reads the child's reports.
    pub(crate) fn progress(&mut self) -> Progress {
        loop {
            match self.next() {
                Ok(None) => return Progress::Waiting,
                Ok(Some(Report::Pid(pid))) => {
                    self.pid = pid;
                    if let Err(error) = report::go(self.channel.as_fd()) {
                        return Progress::Failed(error.into());
                    }
                }
                Ok(Some(Report::AtSyncPoint(point))) => return Progress::AtSyncPoint(point),
                Ok(Some(Report::Terminal(master))) => self.terminal = Some(master),
                Ok(Some(Report::Mount(mount))) => self.mount = Some(mount),
                Ok(Some(Report::Executing)) => self.executing = true,
                Ok(Some(Report::Failed { step, errno, call })) => {
                    return Progress::Failed(Failure { step, what: call, errno });
                }
                Ok(Some(Report::End)) => return self.end(),
                Err(error) => return Progress::Failed(error.into()),
            }
        }
    }

    fn end(&self) -> Progress {
        // Without a pid, the process that was to execute the program was never created.
        if self.executing && self.pid != 0 {
            return Progress::Started;
        }
        let what = "the child was killed before its exec".into();
        Progress::Failed(Failure { step: child::BEFORE, what, errno: libc::ESRCH })
    }

    /// Whether the pid of the process that will execute the program is still to come.
    pub(crate) fn awaits_pid(&self) -> bool {
        self.pid == 0
    }

    /// The processes of the launch that are known and not reaped yet.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> + use<> {
        let second = if self.pid == self.first { 0 } else { self.pid };
        [self.first, second].into_iter().filter(|pid| *pid > 0)
    }

    /// Notes that a process has been reaped; returns the progress that follows from it. With the process that executes
    /// the program the launch is over, and with the first one too where that has told no pid: a process that it has made
    /// waits for the monitor, and ends with the channel. The end of the channel is not waited for, since such a process
    /// may keep it open.
    pub(crate) fn reaped(&mut self, pid: i32) -> Progress {
        if pid != self.first && pid != self.pid {
            return Progress::Waiting;
        }
        let executor = self.pid == pid;
        if self.first == pid {
            self.first = 0;
        }
        match self.progress() {
            Progress::Waiting | Progress::AtSyncPoint(_) if executor || self.pid == 0 => self.end(),
            progress => progress,
        }
    }

    /// Kills the processes of the launch; returns those to wait for. A process whose pid has not come sees the end
    /// of the channel and exits by itself.
    pub(crate) fn abort(mut self) -> Vec<i32> {
        while let Ok(Some(report)) = self.next() {
            match report {
                Report::Pid(pid) => self.pid = pid,
                // No pid follows these.
                Report::End | Report::Failed { .. } => break,
                Report::AtSyncPoint(_) | Report::Terminal(_) | Report::Mount(_) | Report::Executing => {}
            }
        }
        let pids: Vec<_> = self.pids().collect();
        for pid in &pids {
            let _ = process::kill(*pid, libc::SIGKILL);
        }
        pids
    }
}
