//! Signals, as a descriptor to poll; and `poll(2)` itself.

use super::{Result, check, descriptor, done};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// The set of all signals, or of none.
fn set(full: bool) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    if full {
        // SAFETY: writes the live struct.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
    }
    // SAFETY: the empty set of Linux is all zeros, the full one has just been written.
    unsafe { set.assume_init() }
}

fn set_mask(mask: &libc::sigset_t) -> Result<()> {
    // SAFETY: the set is live, and the old one is not asked for.
    done("sigprocmask", unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) })
}

/// Blocks every signal and gives a descriptor that reports SIGCHLD.
pub(crate) fn block_all() -> Result<OwnedFd> {
    set_mask(&set(true))?;
    let mut mask = set(false);
    // SAFETY: writes the live set.
    done("sigaddset", unsafe { libc::sigaddset(&raw mut mask, libc::SIGCHLD) })?;
    // SAFETY: the set is live and only read.
    let value = unsafe { libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    descriptor("signalfd", value)
}

/// Gives every signal its default action and blocks none. By the raw call: the C library keeps 32 and 33 to itself, but a
/// parent may have left them ignored.
pub(crate) fn restore_all() -> Result<()> {
    /// As long as the kernel's struct on every architecture, or longer: no handler, no flags, an empty mask.
    const DEFAULT: [u64; 4] = [0; 4];
    const SET: usize = 8;
    for signal in 1..=64 {
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: the kernel reads a live struct of zeros. The only handlers of this program are std's for
        // a stack overflow, which a child does without;
        // SIGKILL and SIGSTOP are refused, which changes nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), none, SET) };
    }
    set_mask(&set(false))
}

/// `poll(2)`; a negative time waits for good.
pub(crate) fn poll(entries: &mut [libc::pollfd], milliseconds: i32) -> Result<usize> {
    let length = libc::nfds_t::try_from(entries.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: the kernel reads and writes as many entries as the live slice has.
    let value = check("poll", unsafe { libc::poll(entries.as_mut_ptr(), length, milliseconds) })?;
    Ok(usize::try_from(value).unwrap_or(0))
}
