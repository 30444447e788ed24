//! A container's cgroup, held by descriptors of its directories: one on cgroup v2, one per hierarchy on cgroup v1.

use crate::sys::file;
use crate::sys::process;
use crate::sys::{Error, Result};
use slipway_monitor::protocol::Hierarchy;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How often one kill reads and kills the processes of a cgroup without `cgroup.kill`.
const ROUNDS: usize = 8;

/// The cgroup of a container's processes.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directories: Vec<OwnedFd>,
    hierarchy: Hierarchy,
}

/// The files into which a child, the only thread of its process, writes `0` to move itself into its cgroup.
///
/// On cgroup v1 the file is `tasks`, which moves the calling thread alone: the kernel then need not take
/// `cgroup_threadgroup_rwsem` for writing, which waits for an RCU grace period, 10 ms and more. Cgroup v2 has no
/// such file for a move between domains.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doors<'a> {
    directories: &'a [OwnedFd],
    file: &'static CStr,
}

impl Doors<'_> {
    /// Moves the calling process into the cgroup. Allocates nothing.
    pub(crate) fn enter(&self) -> Result<()> {
        self.directories.iter().try_for_each(|directory| write(directory.as_fd(), self.file, b"0"))
    }
}

impl Cgroup {
    /// The cgroup of these directories.
    pub(crate) fn new(directories: Vec<OwnedFd>, hierarchy: Hierarchy) -> Self {
        Self { directories, hierarchy }
    }

    /// The directory for `CLONE_INTO_CGROUP`; `None` where a child enters by writing.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.directories.first().filter(|_| self.is_unified()).map(AsFd::as_fd)
    }

    /// Closes the descriptors of the directories, once no process is left in the cgroup.
    pub(crate) fn close(&mut self) {
        self.directories = Vec::new();
    }

    fn is_unified(&self) -> bool {
        self.hierarchy == Hierarchy::Unified {}
    }

    /// Returns the files by which a child enters that is not created inside (`CLONE_INTO_CGROUP`).
    pub(crate) fn doors(&self) -> Doors<'_> {
        match self.hierarchy {
            Hierarchy::Unified {} => Doors { directories: &[], file: c"cgroup.procs" },
            Hierarchy::UnifiedByHand {} => Doors { directories: &self.directories, file: c"cgroup.procs" },
            Hierarchy::Legacy {} => Doors { directories: &self.directories, file: c"tasks" },
        }
    }

    /// Moves a process into the cgroup. A cgroup v2 that its container has divided into child cgroups may refuse
    /// it (`EBUSY`, `EOPNOTSUPP`); the process then goes into the descendant that holds `init`.
    pub(crate) fn place(&self, pid: i32, init: i32, proc: BorrowedFd<'_>) -> Result<()> {
        for directory in &self.directories {
            match write(directory.as_fd(), c"cgroup.procs", pid.to_string().as_bytes()) {
                Err(error) if self.is_unified() && init > 0 && refuses(error) => {
                    let inner = inner(directory.as_fd(), init, proc).ok_or(error)?;
                    write(directory.as_fd(), &inner, pid.to_string().as_bytes())?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Kills every process in it; without `cgroup.kill`, processes that are forked meanwhile may need another
    /// call.
    pub(crate) fn kill(&self) {
        if let Some(directory) = self.unified() {
            // Absent before Linux 5.14, as in version 1.
            if write(directory, c"cgroup.kill", b"1").is_ok() {
                return;
            }
        }
        self.freeze(b"FROZEN");
        for _ in 0..ROUNDS {
            let processes = self.processes();
            for pid in &processes {
                let _ = process::kill(*pid, libc::SIGKILL);
            }
            if processes.is_empty() {
                break;
            }
        }
        self.freeze(b"THAWED");
    }

    fn freeze(&self, state: &[u8]) {
        for directory in self.directories.iter().filter(|_| !self.is_unified()) {
            // Only the freezer's directory has the file.
            let _ = write(directory.as_fd(), c"freezer.state", state);
        }
    }

    /// The processes in any of its directories.
    fn processes(&self) -> Vec<i32> {
        let mut all = Vec::new();
        for directory in &self.directories {
            let text = read(directory.as_fd(), c"cgroup.procs").unwrap_or_default();
            all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether no process is left in it.
    pub(crate) fn is_empty(&self) -> bool {
        if let Some(directory) = self.unified()
            && let Some(events) = read(directory, c"cgroup.events")
        {
            return value(&events, "populated") != Some(1);
        }
        self.processes().is_empty()
    }

    /// The number of OOM kills that the kernel has counted in it.
    pub(crate) fn oom_kills(&self) -> u64 {
        let files = [c"memory.events", c"memory.oom_control"];
        let counts = self.directories.iter().flat_map(|directory| {
            files.iter().filter_map(|name| value(&read(directory.as_fd(), name)?, "oom_kill"))
        });
        counts.max().unwrap_or(0)
    }
}

fn refuses(error: Error) -> bool {
    matches!(error.errno, libc::EBUSY | libc::EOPNOTSUPP)
}

/// `cgroup.procs` of the cgroup below `directory` that holds `init`: the shortest tail of its path that exists and
/// lists it.
fn inner(directory: BorrowedFd<'_>, init: i32, proc: BorrowedFd<'_>) -> Option<CString> {
    let own = read(proc, &CString::new(format!("{init}/cgroup")).ok()?)?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let cuts = path.rmatch_indices('/').map(|(at, _)| at + 1).chain([0]);
    let tails = cuts.filter_map(|at| path.get(at..));
    tails.filter_map(|tail| CString::new(format!("{tail}/cgroup.procs")).ok()).find(|name| {
        let text = read(directory, name).unwrap_or_default();
        text.lines().any(|line| line.parse() == Ok(init))
    })
}

/// The number after `word` on the first line that begins with it.
fn value(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok())
}

fn write(directory: BorrowedFd<'_>, name: &CStr, bytes: &[u8]) -> Result<()> {
    let opened = file::openat(directory, name, libc::O_WRONLY, 0)?;
    let renamed = |error: Error| Error { call: "write to the cgroup", ..error };
    file::write(opened.as_fd(), bytes).map(drop).map_err(renamed)
}

/// Reads a file, about 1 MiB at most; `None` if it can't be read.
fn read(directory: BorrowedFd<'_>, name: &CStr) -> Option<String> {
    const MOST: usize = 1 << 20;
    let opened = file::openat(directory, name, libc::O_RDONLY, 0).ok()?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.len() < MOST {
        match file::read(opened.as_fd(), &mut buffer).ok()? {
            0 => break,
            length => text.extend_from_slice(buffer.get(..length)?),
        }
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_found_by_its_whole_word() {
        let events = "low 0\noom 3\noom_kill 2\noom_group_kill 9\n";
        assert_eq!(value(events, "oom_kill"), Some(2));
        assert_eq!(value("populated 1\nfrozen 0\n", "populated"), Some(1));
        assert_eq!(value("oom_kill_disable 0\nunder_oom 0\n", "oom_kill"), None);
    }
}
