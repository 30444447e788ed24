//! Setup before the monitor serves: its own process, and the pod that the daemon gives it.

use crate::child::identity;
use crate::sys::process::{CapabilitySets, Side};
use crate::sys::{Error, Result, file, process, signal};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

const PARENT: u64 = libc::CLONE_PARENT.cast_unsigned() as u64;

/// The listening socket and the descriptor of signals.
#[derive(Debug)]
pub(crate) struct Process {
    /// Listens for connections.
    pub(crate) listener: OwnedFd,
    /// Readable when a child has ended.
    pub(crate) signals: OwnedFd,
}

/// Makes this process a monitor. The listening socket arrives as standard input and is moved to another
/// descriptor; standard input and output become /dev/null, and standard error stays the daemon's log.
pub(crate) fn begin() -> Result<Process> {
    if !file::fstat(file::standard(0))?.is(libc::S_IFSOCK) {
        // A container may execute this program through /proc; it then ends here.
        return Err(Error { call: "listening socket", errno: libc::ENOTSOCK });
    }
    // The daemon executes the monitor through a descriptor, whose number the kernel has taken as the process's
    // name.
    process::set_name(c"slipway-monitor")?;
    // EPERM is expected where the process leads its process group already, by which the daemon knows it.
    let _ = process::setsid(0);
    enter_cgroup()?;
    let listener = file::duplicate(file::standard(0))?;
    file::set_nonblocking(listener.as_fd())?;
    let null = file::openat(file::here(), c"/dev/null", libc::O_RDWR, 0)?;
    for number in 0..2 {
        file::replace_standard(null.as_fd(), number)?;
    }
    drop(null);
    file::close_all_on_exec()?;
    file::umask(0);
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
    Ok(Process { listener, signals: signal::block_all()? })
}

/// Moves the monitor into its cgroup v2, if standard output is the directory of one: clones itself into that
/// cgroup with the same parent (`CLONE_PARENT`), and ends the old process. A write to `cgroup.procs` would wait
/// for an RCU grace period; a clone of the daemon into the cgroup would take milliseconds, for the daemon is large
/// and has threads. A clone of this small program is cheap.
fn enter_cgroup() -> Result<()> {
    let cgroup = file::standard(1);
    if !file::fstat(cgroup)?.is(libc::S_IFDIR) {
        return Ok(());
    }
    let into = |error: Error| Error { call: "clone3 into the cgroup of monitors", ..error };
    match process::clone3(PARENT, Some(cgroup)).map_err(into)? {
        Side::Child => Ok(()),
        Side::Parent(_) => process::exit_now(0),
    }
}

/// Drops all capabilities but these, and drops from the bounding set, for the programs that it will execute, all
/// that are not in `permitted`.
pub(crate) fn keep(permitted: u64, effective: u64) -> Result<()> {
    identity::bound(permitted)?;
    process::capset(CapabilitySets { effective, permitted, inheritable: 0 })
}

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its id.
    pub(crate) id: String,
    /// Its state directory.
    pub(crate) state: OwnedFd,
    /// `/proc` of the monitor's small mount namespace.
    pub(crate) proc: OwnedFd,
}

impl Pod {
    /// Enters the monitor's small mount namespace.
    pub(crate) fn enter(id: String, state: OwnedFd, namespace: &OwnedFd) -> Result<Self> {
        process::setns(namespace.as_fd(), u64::from(libc::CLONE_NEWNS.cast_unsigned()))?;
        file::chdir(c"/")?;
        let proc = file::openat(file::here(), c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0)?;
        Ok(Self { id, state, proc })
    }

    /// Writes a file of the state directory atomically, by rename.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<()> {
        let wrong = |_| Error { call: "file name", errno: libc::EINVAL };
        let temporary = CString::new(format!(".{name}.new")).map_err(wrong)?;
        let name = CString::new(name).map_err(wrong)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
        let opened = file::openat(self.state.as_fd(), &temporary, flags, 0o600)?;
        let mut rest = content.as_bytes();
        while !rest.is_empty() {
            let written = file::write(opened.as_fd(), rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        file::rename(self.state.as_fd(), &temporary, &name)
    }

    /// Removes a file of the state directory, if it is there.
    pub(crate) fn remove(&self, name: &str) {
        if let Ok(name) = CString::new(name) {
            let _ = file::unlink(self.state.as_fd(), &name);
        }
    }
}
