//! The tables of iptables-legacy, which `getsockopt(2)` alone tells of: the same two questions in both families.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `IPT_SO_GET_INFO`, `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;
/// `IPT_SO_GET_ENTRIES`, `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: libc::c_int = 65;
/// A table's name with its end mark.
const NAME: usize = 32;
/// The size of `struct ipt_getinfo`: the name, then 13 numbers.
const INFO: usize = 84;
/// Where the entries begin in `struct ipt_get_entries`: behind the name and a number, aligned for 64-bit counters.
const ENTRIES: usize = 40;
/// The most that a table may have, so that a broken answer can't fill the memory.
const LIMIT: usize = 64 << 20;

/// Whose table it is: each address family has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// iptables.
    V4,
    /// ip6tables.
    V6,
}

/// `struct ipt_getinfo` of a table.
pub(crate) fn info(family: Family, table: &str) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; INFO];
    ask(family, GET_INFO, table, &mut answer)?;
    Ok(answer)
}

/// The `size` bytes of a table's entries.
pub(crate) fn entries(family: Family, table: &str, size: usize) -> io::Result<Vec<u8>> {
    if size > LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut answer = vec![0; ENTRIES.saturating_add(size)];
    let length = u32::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?.to_ne_bytes();
    for (byte, value) in answer.iter_mut().skip(NAME).zip(length) {
        *byte = value;
    }
    ask(family, GET_ENTRIES, table, &mut answer)?;
    Ok(answer.split_off(ENTRIES))
}

fn ask(family: Family, question: libc::c_int, table: &str, answer: &mut [u8]) -> io::Result<()> {
    for (byte, letter) in answer.iter_mut().zip(table.bytes().take(NAME.saturating_sub(1))) {
        *byte = letter;
    }
    let domain = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(domain, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let level = match family {
        Family::V4 => libc::SOL_IP,
        Family::V6 => libc::SOL_IPV6,
    };
    option(socket.as_fd(), (level, question), answer)
}

/// `getsockopt(2)` of an option that is a buffer of exactly this length, some of it filled in by the caller.
fn option(
    socket: BorrowedFd<'_>,
    (level, name): (libc::c_int, libc::c_int),
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: the descriptor is borrowed for the call; the buffer is live and writable for the length that is passed
    // along, beyond which the kernel never writes, and every value of its bytes is valid.
    let answer = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
