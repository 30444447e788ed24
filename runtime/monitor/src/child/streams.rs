//! Steps about standard streams: the session, the terminal, the owner.

use super::Child;
use crate::launch::report;
use crate::sys::file::{How, resolve};
use crate::sys::{Error, Result, file, mount, process, tty};
use std::os::fd::{AsFd, BorrowedFd};

/// Major numbers of pseudo-terminals' slaves.
const SLAVES: std::ops::Range<u32> = 136..144;

/// Begins a session, with the terminal that the monitor was asked for as its controlling one.
pub(super) fn session(child: &Child<'_>, terminal: bool, base: Option<BorrowedFd<'_>>) -> Result<()> {
    if terminal && child.streams.is_none() {
        make_terminal(child, base)?;
        if let Some(root) = base {
            console(root)?;
        }
    }
    process::setsid()?;
    if terminal { tty::set_controlling(file::standard(0)) } else { Ok(()) }
}

/// Opens a terminal of the container's own devpts, makes its slave the three streams and sends its master.
fn make_terminal(child: &Child<'_>, base: Option<BorrowedFd<'_>>) -> Result<()> {
    let root;
    let base = match base {
        Some(base) => base,
        None => {
            root = file::openat(file::here(), c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
            root.as_fd()
        }
    };
    let resolve = resolve::IN_ROOT | resolve::NO_MAGICLINKS;
    let how = How { flags: libc::O_RDWR | libc::O_NOCTTY, mode: 0, resolve };
    let master = file::openat2(base, c"dev/pts/ptmx", how)?;
    if !file::is_devpts(master.as_fd())? {
        return Err(Error { call: "container's /dev/pts", errno: libc::ENODEV });
    }
    tty::unlock(master.as_fd())?;
    let slave = tty::slave(master.as_fd())?;
    for number in 0..3 {
        file::replace_standard(slave.as_fd(), number)?;
    }
    report::tell_terminal(child.channel, master.as_fd())
}

/// Mounts the terminal on the container's /dev/console, where the plan has made a file for it.
fn console(root: BorrowedFd<'_>) -> Result<()> {
    let how = How { flags: libc::O_PATH, mode: 0, resolve: resolve::IN_ROOT | resolve::NO_MAGICLINKS };
    let Ok(target) = file::openat2(root, c"dev/console", how) else { return Ok(()) };
    if !file::fstat(target.as_fd())?.is(libc::S_IFREG) {
        return Ok(());
    }
    mount::attach(mount::clone_tree(file::standard(0), false)?.as_fd(), target.as_fd())
}

/// Gives the files behind the streams to a user, where they are the monitor's or a client's pipes or a terminal.
pub(super) fn own(uid: u32, gid: u32) -> Result<()> {
    for stream in (0..3).map(file::standard) {
        let stat = file::fstat(stream)?;
        let is_slave = stat.is(libc::S_IFCHR) && SLAVES.contains(&libc::major(stat.device));
        if !is_slave && !stat.is(libc::S_IFIFO) {
            continue;
        }
        match file::fchown(stream, uid, gid) {
            // A pipe from outside of the user namespace; the monitor has opened it to all.
            Err(error) if error.errno == libc::EPERM => {}
            result => result?,
        }
    }
    Ok(())
}
