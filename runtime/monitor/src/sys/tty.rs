//! Terminals.

use super::{Result, descriptor, done};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Unlocks the slave of a master.
pub(crate) fn unlock(master: BorrowedFd<'_>) -> Result<()> {
    let locked = 0_i32;
    // SAFETY: the kernel reads one number from the live variable.
    done("ioctl TIOCSPTLCK", unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) })
}

/// Opens the slave of a master, without a path.
pub(crate) fn slave(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call.
    descriptor("ioctl TIOCGPTPEER", unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })
}

/// Makes a terminal the controlling one of this session, past a filter that knows `pass`.
pub(crate) fn set_controlling(terminal: BorrowedFd<'_>, pass: u64) -> Result<()> {
    let (terminal, none) = (terminal.as_raw_fd(), 0_usize);
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call, and the sixth argument is for the filter alone.
    let value = unsafe { libc::syscall(libc::SYS_ioctl, terminal, libc::TIOCSCTTY, none, none, none, pass) };
    done("ioctl TIOCSCTTY", value)
}

/// Sets a terminal's size.
pub(crate) fn resize(terminal: BorrowedFd<'_>, width: u16, height: u16) -> Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads the live struct.
    done("ioctl TIOCSWINSZ", unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}
