//! Steps about standard streams: the session, the terminal, the owner.

use super::Child;
use crate::launch::report;
use crate::launch::report::Kind;
use crate::stdio::NULL_DEVICE;
use crate::sys::file::{How, resolve};
use crate::sys::{Error, Result, file, mount, process, tty};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Major numbers of pseudo-terminals' slaves.
const SLAVES: std::ops::Range<u32> = 136..144;

/// Puts the container's own /dev/null where the host's is. A child that will make a terminal has it for now in the place of
/// the monitor's streams.
pub(super) fn replace_null(child: &Child<'_>) -> Result<()> {
    let mut own = None;
    for number in 0..3 {
        let stat = file::fstat(file::standard(number))?;
        let is_null = stat.is(libc::S_IFCHR) && stat.device == NULL_DEVICE;
        if !is_null && child.streams.is_some() {
            continue;
        }
        let null = match own.take() {
            Some(null) => null,
            None => own_null()?,
        };
        file::replace_standard(null.as_fd(), number)?;
        own = Some(null);
    }
    Ok(())
}

/// The container's /dev/null or, where it has put something else there, a pipe that has ended.
fn own_null() -> Result<OwnedFd> {
    // A FIFO in its place must not be waited for.
    if let Ok(null) = open(c"dev/null", libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK) {
        let stat = file::fstat(null.as_fd())?;
        if stat.is(libc::S_IFCHR) && stat.device == NULL_DEVICE {
            file::clear_flags(null.as_fd())?;
            return Ok(null);
        }
    }
    file::pipe().map(|(read, _)| read)
}

/// Opens a path of the container, whose root this process's is by now.
fn open(path: &CStr, flags: i32) -> Result<OwnedFd> {
    let root = file::openat(file::here(), c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let resolve = resolve::IN_ROOT | resolve::NO_MAGICLINKS;
    file::openat2(root.as_fd(), path, How { flags, mode: 0, resolve })
}

/// Begins a session, with the terminal of standard input as its controlling one.
pub(super) fn session(terminal: bool, pass: u64) -> Result<()> {
    process::setsid(pass)?;
    if terminal { tty::set_controlling(file::standard(0), pass) } else { Ok(()) }
}

/// Opens a terminal of the container's own devpts, makes its slave the three streams and sends its master. A container
/// that is being started has it as its console.
pub(super) fn make_terminal(channel: BorrowedFd<'_>, starts: bool) -> Result<()> {
    let master = open(c"dev/pts/ptmx", libc::O_RDWR | libc::O_NOCTTY)?;
    if !file::is_devpts(master.as_fd())? {
        return Err(Error { call: "container's /dev/pts", errno: libc::ENODEV });
    }
    tty::unlock(master.as_fd())?;
    let slave = tty::slave(master.as_fd())?;
    for number in 0..3 {
        file::replace_standard(slave.as_fd(), number)?;
    }
    report::tell_right(channel, Kind::Terminal, master.as_fd())?;
    if starts { console() } else { Ok(()) }
}

/// Mounts the terminal on the container's /dev/console, where the plan has made a file for it.
fn console() -> Result<()> {
    let Ok(target) = open(c"dev/console", libc::O_PATH) else { return Ok(()) };
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
