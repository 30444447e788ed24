//! The raw calls of network namespaces and netlink sockets that rustix has no safe form of.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread into a new, empty network namespace.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: only the network namespace is unshared; the descriptor table, the one thing that makes unshare(2)
    // unsound, stays shared with all threads.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Asks the kernel to add a sentence to each error of this netlink socket.
pub(crate) fn netlink_extended_ack(socket: BorrowedFd<'_>) -> io::Result<()> {
    const LENGTH: libc::socklen_t = 4;
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed for the call, and the option is a live 4-byte c_int whose exact size is passed
    // along; the kernel only reads it.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_EXT_ACK,
            (&raw const on).cast(),
            LENGTH,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
