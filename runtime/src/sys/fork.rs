//! `fork(2)` of a process with one thread, and what its copy does without.

use rustix::process::Pid;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Makes a copy of this process: none in the copy, and the copy's pid here.
///
/// # Errors
/// When the process has more than one thread, and the kernel's.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with several threads can't be copied"));
    }
    // SAFETY: there is no other thread, so that the copy's locks and memory are as this thread left them.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Has the kernel reap the children of this process.
pub(crate) fn reap_children_by_itself() {
    // SAFETY: to ignore a signal takes no handler, and SIGCHLD is ignored by default but for the reaping.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Gives a standard stream up: 0, 1 or 2 become /dev/null.
///
/// # Errors
/// When /dev/null can't be opened.
pub(crate) fn silence(stream: i32) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: both numbers are of open descriptors, and nobody in this crate owns a standard stream's.
    match unsafe { libc::dup2(null.as_raw_fd(), stream) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
