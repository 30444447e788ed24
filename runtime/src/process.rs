//! Processes that need not be children of this daemon, identified by pid and start time.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The polling interval for a process that can't be waited for.
const LOOK: Duration = Duration::from_millis(100);

/// A process. Its pid alone does not identify it: the kernel reuses pids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// When it began, in clock ticks since boot: field 22 of `proc_pid_stat(5)`.
    began: u64,
}

/// The fields of a process's `proc_pid_stat(5)` that are used here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    began: u64,
    /// The exit status as `wait(2)` reports it, valid once the process is a zombie.
    exit_status: i32,
}

impl Stat {
    fn of(pid: i32) -> std::io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&String::from_utf8_lossy(&text)).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }

    /// The second field is the program's name in parentheses, which may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first of these is the third of all.
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            began: fields.get(19)?.parse().ok()?,
            exit_status: fields.get(49)?.parse().ok()?,
        })
    }

    /// Whether it executes nothing any more.
    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

impl Process {
    /// The process that has this pid now; none when it can't be found out.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Stat::of(pid).ok().map(|stat| Self { pid, began: stat.began })
    }

    /// Whether it is proven to have ended. A failed look-up, for want of descriptors or memory, proves nothing.
    pub(crate) fn is_dead(self) -> bool {
        match Stat::of(self.pid) {
            Ok(stat) => stat.began != self.began || stat.has_ended(),
            Err(_) => Pid::from_raw(self.pid).is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH)),
        }
    }

    /// A descriptor of it, readable from its end on.
    ///
    /// # Errors
    /// ESRCH when it has been reaped; also when this process has no descriptors left.
    pub(crate) fn descriptor(self) -> std::io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid).ok_or(Errno::SRCH)?;
        let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
        // Checked after the open: a process that still has the pid had it when the descriptor was opened.
        if Stat::of(self.pid)?.began == self.began { Ok(descriptor) } else { Err(Errno::SRCH.into()) }
    }

    /// Sends it a signal; one that has ended needs none.
    ///
    /// # Errors
    /// When it lives and can't be sent one.
    pub(crate) fn signal(self, signal: Signal) -> std::io::Result<()> {
        let sent = self.descriptor().and_then(|descriptor| Ok(pidfd_send_signal(descriptor, signal)?));
        match sent {
            Err(_) if self.is_dead() => Ok(()),
            sent => sent,
        }
    }

    /// Waits for its end; false when it has not ended in time.
    pub(crate) fn wait(self, limit: Duration) -> bool {
        let end = Instant::now().checked_add(limit);
        while !self.is_dead() {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            match self.descriptor() {
                Ok(descriptor) => {
                    let timeout = left.map(timespec);
                    // An interrupted wait is begun again.
                    let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], timeout.as_ref());
                }
                // Without a descriptor to wait on it is looked at from time to time.
                Err(_) => std::thread::sleep(left.unwrap_or(LOOK).min(LOOK)),
            }
        }
        true
    }

    /// How it has ended, as `wait(2)` says it, while its parent has not reaped it.
    pub(crate) fn unreaped_status(self, parent: Self) -> Option<i32> {
        let stat = Stat::of(self.pid).ok()?;
        let is_it = stat.began == self.began && stat.parent == parent.pid && stat.state == 'Z';
        is_it.then_some(stat.exit_status)
    }

    /// The child of `parent` among these that began first.
    pub(crate) fn first_child(parent: Self, pids: &[i32]) -> Option<Self> {
        let children = pids.iter().filter_map(|pid| {
            let stat = Stat::of(*pid).ok()?;
            (stat.parent == parent.pid).then_some(Self { pid: *pid, began: stat.began })
        });
        children.min_by_key(|child| child.began)
    }
}

/// A duration as the kernel takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn own() -> Process {
        Process::of(i32::try_from(std::process::id()).unwrap()).unwrap()
    }

    #[test]
    fn a_name_in_a_stat_line_may_hold_anything() {
        let middle = vec!["0"; 16].join(" ");
        let text = format!("7 (a) Z 1 (b) Z 42 {middle} 0 99 {} 256\n", vec!["0"; 29].join(" "));
        let stat = Stat::parse(&text).unwrap();
        assert_eq!(stat, Stat { state: 'Z', parent: 42, began: 99, exit_status: 256 });
        assert_eq!(Stat::parse("7 (a"), None);
    }

    #[test]
    fn only_the_same_process_lives() {
        let own = own();
        assert!(!own.is_dead());
        assert!(Process { began: own.began + 1, ..own }.is_dead(), "the pid is another's");
        assert!(Process { began: own.began + 1, ..own }.descriptor().is_err());
        assert!(!own.wait(Duration::ZERO));
    }

    #[test]
    fn the_status_of_a_process_that_nobody_has_reaped_is_read() {
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = Process::first_child(own(), &[1, pid]).unwrap();
        assert!(found.wait(Duration::from_secs(60)));
        assert_eq!(found.unreaped_status(own()), Some(3 << 8));
        child.wait().unwrap();
        assert!(found.is_dead());
        assert_eq!(found.unreaped_status(own()), None);
    }
}
