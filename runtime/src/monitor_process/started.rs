//! A monitor as a child of this daemon: ended and reaped, so that none is left as a zombie.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use std::process::Child;

/// A monitor that this daemon has started and not reaped yet.
///
/// It is known by its process group, which is that of its first process: where the monitor is born in its cgroup, another
/// of the daemon's children has taken that one's place. The number can't be given to others before all are reaped.
#[derive(Debug)]
pub(crate) struct Started {
    group: Pid,
}

impl Started {
    /// The monitor that has begun as this process, in a process group of its own.
    pub(crate) fn of(first: &Child) -> Self {
        Self { group: Pid::from_child(first) }
    }

    /// Kills it, with those of its children that have not left its group.
    pub(crate) fn kill(&self) {
        // ESRCH: it has been reaped already.
        let _ = kill_process_group(self.group, Signal::KILL);
    }

    /// Whether it has ended; reaps it then, once.
    pub(crate) fn has_ended(&self) -> bool {
        self.reap(WaitOptions::NOHANG)
    }

    /// Waits until it has ended, and reaps it.
    pub(crate) fn wait(&self) {
        while !self.reap(WaitOptions::empty()) {}
    }

    fn reap(&self, options: WaitOptions) -> bool {
        // ECHILD: nothing of it is left to reap.
        !matches!(waitpgid(self.group, options), Ok(None) | Err(Errno::INTR))
    }
}
