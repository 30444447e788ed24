//! A process run in a container for one client: its end ends the client's session, and the other way round.

use crate::connection::Role;
use crate::container::Failing;
use crate::launch::prepared::Prepared;
use crate::launch::{Launch, Order, Progress};
use crate::server::{Server, boot_time, real_time};
use crate::stdio;
use crate::sys::{process, tty};
use slipway_monitor::protocol::{Exit, Reply};
use std::os::fd::{AsFd, OwnedFd};

const MILLISECOND: i64 = 1_000_000;

/// Where in its life a session is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Its child executes the plan.
    Launching(Launch),
    /// Its launch failed.
    Failing(Failing),
    /// Its program runs.
    Running,
    /// It has ended, and its client has been told.
    Ended,
}

/// A process of a client's.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) container: String,
    pub(crate) stage: Stage,
    pub(crate) pid: i32,
    pub(crate) started_at: i64,
    /// When it is killed, by the clock since boot.
    pub(crate) deadline: Option<i64>,
    pub(crate) timed_out: bool,
    /// The master of its terminal, for its size.
    pub(crate) terminal: Option<OwnedFd>,
}

impl Session {
    /// Kills the process and its process group.
    pub(crate) fn kill(&self) {
        if matches!(self.stage, Stage::Running) && self.pid > 0 {
            let _ = process::kill(-self.pid, libc::SIGKILL);
            let _ = process::kill(self.pid, libc::SIGKILL);
        }
    }

    /// Its launch, while that lasts.
    pub(crate) fn launch(&self) -> Option<&Launch> {
        match &self.stage {
            Stage::Launching(launch) => Some(launch),
            Stage::Failing(_) | Stage::Running | Stage::Ended => None,
        }
    }

    /// Its processes that are known and not reaped yet.
    pub(crate) fn pids(&self) -> Vec<i32> {
        match &self.stage {
            Stage::Launching(launch) => launch.pids().collect(),
            Stage::Failing(failing) => failing.pids.clone(),
            Stage::Running => vec![self.pid],
            Stage::Ended => Vec::new(),
        }
    }

    /// Ends it because its client is gone.
    pub(crate) fn abandon(self) {
        self.kill();
        if let Stage::Launching(launch) = self.stage {
            launch.abort();
        }
    }

    /// Notes that a process is gone; the answer that follows from it.
    pub(crate) fn reaped(&mut self, pid: i32, wait_status: i32) -> Vec<Reply> {
        let mut replies = Vec::new();
        if let Stage::Launching(launch) = &mut self.stage {
            let progress = launch.reaped(pid);
            replies.extend(self.advance(progress));
        }
        if let Stage::Failing(failing) = &mut self.stage {
            failing.pids.retain(|waited| *waited != pid);
            if failing.pids.is_empty() {
                replies.push(failing.reply.clone());
                self.stage = Stage::Ended;
            }
        }
        if matches!(self.stage, Stage::Running) && self.pid == pid {
            self.stage = Stage::Ended;
            let exit = Exit {
                wait_status,
                oom_kills: 0,
                started_at: self.started_at,
                finished_at: real_time(),
                timed_out: self.timed_out,
            };
            replies.push(Reply::Exited { container: self.container.clone(), exit });
        }
        replies
    }

    /// Follows its launch; the answer that follows from it.
    pub(crate) fn advance(&mut self, progress: Progress) -> Option<Reply> {
        let Stage::Launching(launch) = &mut self.stage else { return None };
        match progress {
            Progress::Waiting => return None,
            // Sync points are for containers; a session does not wait at one.
            Progress::AtSyncPoint(_) => {
                let _ = launch.go_on();
                return None;
            }
            Progress::Started => {
                self.pid = launch.pid();
                self.terminal = launch.take_terminal();
                self.started_at = real_time();
                self.stage = Stage::Running;
                return Some(Reply::Started { pid: self.pid, started_at: self.started_at });
            }
            Progress::Failed(failure) => {
                let reply = failure.reply();
                let stage = std::mem::replace(&mut self.stage, Stage::Ended);
                let Stage::Launching(launch) = stage else { return None };
                self.stage = Stage::Failing(Failing { pids: launch.abort(), reply });
            }
        }
        match &self.stage {
            Stage::Failing(failing) if failing.pids.is_empty() => Some(failing.reply.clone()),
            _ => None,
        }
    }

    /// Sets the size of its terminal.
    pub(crate) fn resize(&self, width: u16, height: u16) -> Reply {
        let Some(terminal) = &self.terminal else {
            return Reply::Refused { why: "the session has no terminal".into() };
        };
        match tty::resize(terminal.as_fd(), width, height) {
            Ok(()) => Reply::Done {},
            Err(error) => Reply::Refused { why: format!("resize: {error}") },
        }
    }
}

impl Server {
    /// Serves `Exec`: the connection becomes a session.
    pub(crate) fn exec(
        &mut self,
        id: u64,
        (container, terminal, deadline_ms): (String, bool, u64),
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Reply> {
        let refused = |why| Reply::Refused { why };
        let pod = self.pod.as_ref().ok_or_else(|| refused("the monitor has no pod yet".into()))?;
        let found = self.containers.get(&container).filter(|container| container.is_running());
        let known = found.ok_or_else(|| refused(format!("container {container} is not running")))?;
        let streams = if terminal { 0 } else { 3 };
        let mut descriptors = descriptors;
        if descriptors.len() <= streams {
            return Err(refused("descriptors of the plan or of the streams are missing".into()));
        }
        let ends = descriptors.split_off(descriptors.len() - streams);
        for end in &ends {
            if !stdio::is_stream(end.as_fd()).unwrap_or(false) {
                return Err(refused("standard streams are pipes or null devices".into()));
            }
        }
        let memfd = descriptors.remove(0);
        let prepared = Prepared::read(memfd.as_fd(), descriptors.len(), terminal).map_err(refused)?;
        let order = Order {
            prepared: &prepared,
            descriptors: &descriptors,
            streams: match ends.as_slice() {
                [input, output, error] => Some([input.as_fd(), output.as_fd(), error.as_fd()]),
                _ => None,
            },
            cgroup: &known.cgroup,
            init: known.pid,
            proc: pod.proc.as_fd(),
        };
        let launch = Launch::begin(&order).map_err(crate::launch::Failure::reply)?;
        let grace = i64::try_from(deadline_ms).unwrap_or(i64::MAX).saturating_mul(MILLISECOND);
        let session = Session {
            container,
            stage: Stage::Launching(launch),
            pid: 0,
            started_at: 0,
            deadline: (deadline_ms > 0).then(|| boot_time().saturating_add(grace)),
            timed_out: false,
            terminal: None,
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.role = Role::Session(Box::new(session));
        }
        Ok(())
    }

    /// Follows the launch of a session.
    pub(crate) fn advance_session(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Role::Session(session) = &mut connection.role else { return };
        let Stage::Launching(launch) = &mut session.stage else { return };
        let progress = launch.progress();
        let reply = session.advance(progress);
        self.tell_session(id, reply.into_iter().collect());
    }

    /// Sends replies of a session; the master of its terminal goes with `Started`.
    pub(crate) fn tell_session(&mut self, id: u64, replies: Vec<Reply>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        for reply in replies {
            let Role::Session(session) = &connection.role else { return };
            let master = match &reply {
                Reply::Started { .. } => session.terminal.as_ref(),
                _ => None,
            };
            let copy = master.and_then(|master| crate::sys::file::duplicate(master.as_fd()).ok());
            connection.send(&reply, copy.into_iter().collect());
        }
    }
}
