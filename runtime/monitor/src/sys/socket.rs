//! Packet sockets with descriptors.

use super::{Error, Result, check, count, descriptor, done};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// `SCM_MAX_FD`: descriptors that the kernel puts into one packet.
const MAX: usize = 253;
/// The length of a control message's header.
const HEADER: usize = size_of::<libc::cmsghdr>();
/// The offset of its level; the type follows.
const LEVEL: usize = size_of::<usize>();
/// Room for the sender's credentials (`SCM_CREDENTIALS`), which come first.
const SENDER: usize = (HEADER + size_of::<libc::ucred>()).next_multiple_of(8);
/// Room for those, and for a header and as many descriptors as there may be.
const ROOM: usize = SENDER + HEADER + MAX * size_of::<RawFd>() + 8;

/// Room for control messages, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; ROOM]);

/// A packet as it came.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Its length; 0 is the end of the connection.
    pub(crate) length: usize,
    /// Whether bytes or descriptors did not fit.
    pub(crate) truncated: bool,
    /// The descriptors that came along.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The process that sent it, as the kernel says, on a socket that asks for it; the end of a connection has none.
    pub(crate) sender: Option<i32>,
}

/// Whether a packet's descriptors are wanted; else the kernel drops them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    Taken,
    Dropped,
}

/// A connected pair of packet sockets.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two numbers into the live array.
    done("socketpair", unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    let [first, second] = ends;
    Ok((descriptor("socketpair", first)?, descriptor("socketpair", second)?))
}

/// Has each packet come with its sender (`SO_PASSCRED`).
pub(crate) fn ask_for_senders(socket: BorrowedFd<'_>) -> Result<()> {
    let yes = 1_i32;
    let length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0);
    let value = (&raw const yes).cast();
    // SAFETY: the kernel reads `length` bytes of the live variable.
    let value =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, value, length) };
    done("setsockopt", value)
}

/// A datagram socket of the Internet family, for requests about links.
pub(crate) fn datagram() -> Result<OwnedFd> {
    // SAFETY: takes plain numbers.
    descriptor("socket", unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })
}

/// `accept4(2)`: a connection that does not wait.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the peer's address is not asked for, so no memory is written.
    descriptor("accept4", unsafe { libc::accept4(listener.as_raw_fd(), address, length, flags) })
}

/// The user id of the peer (`SO_PEERCRED`).
pub(crate) fn peer_uid(socket: BorrowedFd<'_>) -> Result<u32> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes into the live struct.
    let value = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    done("getsockopt", value)?;
    Ok(credentials.uid)
}

/// Lets reads of a socket wait no longer than so many seconds.
pub(crate) fn limit_wait(socket: BorrowedFd<'_>, seconds: i64) -> Result<()> {
    let time = libc::timeval { tv_sec: seconds, tv_usec: 0 };
    let length = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or(0);
    // SAFETY: the kernel reads `length` bytes of the live struct.
    let value = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const time).cast(),
            length,
        )
    };
    done("setsockopt", value)
}

/// Receives one packet with its descriptors. Allocates when there are any.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> Result<Packet> {
    receive_with(socket, buffer, flags, Rights::Taken)
}

/// Receives one packet. Allocates when descriptors are taken.
pub(crate) fn receive_with(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: i32,
    rights: Rights,
) -> Result<Packet> {
    let mut control = Control([0; ROOM]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = message(&raw mut part);
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = if rights == Rights::Taken { size_of::<Control>() } else { SENDER };
    // SAFETY: the message names live buffers with no more than their lengths.
    let value =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags | libc::MSG_CMSG_CLOEXEC) };
    let length = count("recvmsg", value)?;
    let truncated = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    let written = control.0.get(..message.msg_controllen).unwrap_or_default();
    let (sender, descriptors) = control_messages(written)?;
    Ok(Packet { length, truncated, descriptors, sender })
}

/// The sender and the descriptors of received control messages.
fn control_messages(mut control: &[u8]) -> Result<(Option<i32>, Vec<OwnedFd>)> {
    let (mut sender, mut descriptors) = (None, Vec::new());
    while let Some((header, _)) = control.split_at_checked(HEADER) {
        let number = |at: usize| {
            header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes)
        };
        let length = header.first_chunk().map_or(0, |bytes| usize::from_ne_bytes(*bytes));
        let (numbers, _) = control.get(HEADER..length).unwrap_or_default().as_chunks::<4>();
        if number(LEVEL) == Some(libc::SOL_SOCKET) {
            match number(LEVEL + 4) {
                Some(libc::SCM_RIGHTS) => {
                    for bytes in numbers {
                        descriptors.push(descriptor("recvmsg", i32::from_ne_bytes(*bytes))?);
                    }
                }
                // The pid is the first field of `struct ucred`.
                Some(libc::SCM_CREDENTIALS) => {
                    sender = numbers.first().map(|bytes| i32::from_ne_bytes(*bytes))
                }
                _ => {}
            }
        }
        control = control.get(length.max(HEADER).next_multiple_of(8)..).unwrap_or_default();
    }
    Ok((sender, descriptors))
}

/// Receives one packet without descriptors, past a filter that knows `pass`; 0 is the end of the connection.
pub(crate) fn receive_past(socket: BorrowedFd<'_>, buffer: &mut [u8], pass: u64) -> Result<usize> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut packets = libc::mmsghdr { msg_hdr: message(&raw mut part), msg_len: 0 };
    let (raw, none) = (socket.as_raw_fd(), 0_usize);
    // SAFETY: one message that names a live buffer with its exact length. The kernel takes five arguments; the sixth is
    // for the filter alone.
    let value = unsafe { libc::syscall(libc::SYS_recvmmsg, raw, &raw mut packets, 1, 0, none, pass) };
    check("recvmmsg", value)?;
    Ok(packets.msg_len as usize)
}

/// Sends one packet, with descriptors (253 at most); never raises SIGPIPE.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    rights: &[BorrowedFd<'_>],
    flags: i32,
) -> Result<()> {
    send_past(socket, (bytes, rights), flags, 0)
}

/// The same, past a filter that knows `pass`.
pub(crate) fn send_past(
    socket: BorrowedFd<'_>,
    (bytes, rights): (&[u8], &[BorrowedFd<'_>]),
    flags: i32,
    pass: u64,
) -> Result<()> {
    if rights.len() > MAX {
        return Err(Error { call: "sendmsg", errno: libc::EINVAL });
    }
    let mut control = Control([0; ROOM]);
    let length = HEADER + rights.len() * 4;
    let header = length.to_ne_bytes().into_iter().chain(libc::SOL_SOCKET.to_ne_bytes());
    let header = header.chain(libc::SCM_RIGHTS.to_ne_bytes());
    let numbers = rights.iter().flat_map(|right| right.as_raw_fd().to_ne_bytes());
    for (place, byte) in control.0.iter_mut().zip(header.chain(numbers)) {
        *place = byte;
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = message(&raw mut part);
    if !rights.is_empty() {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = length.next_multiple_of(align_of::<libc::cmsghdr>());
    }
    let mut packets = libc::mmsghdr { msg_hdr: message, msg_len: 0 };
    let (raw, flags, none) = (socket.as_raw_fd(), flags | libc::MSG_NOSIGNAL, 0_usize);
    // SAFETY: one message that names live buffers with their exact lengths. The kernel takes four arguments; the sixth is
    // for the filter alone.
    let value = unsafe { libc::syscall(libc::SYS_sendmmsg, raw, &raw mut packets, 1, flags, none, pass) };
    done("sendmmsg", value)
}

/// A message of one part without control data.
fn message(part: *mut libc::iovec) -> libc::msghdr {
    // SAFETY: a msghdr of zeros is valid: no name, no parts, no control data.
    let mut message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_packet_says_who_sent_it_and_its_descriptors_can_be_dropped() -> Result<()> {
        let (left, right) = pair()?;
        ask_for_senders(right.as_fd())?;
        let own = std::process::id().cast_signed();
        let mut buffer = [0; 8];
        for (rights, count) in [(Rights::Taken, 1), (Rights::Dropped, 0)] {
            send(left.as_fd(), b"x", &[left.as_fd()], 0)?;
            let packet = receive_with(right.as_fd(), &mut buffer, 0, rights)?;
            assert_eq!((packet.length, packet.sender, packet.descriptors.len()), (1, Some(own), count));
        }
        send(left.as_fd(), b"", &[], 0)?;
        let packet = receive(right.as_fd(), &mut buffer, 0)?;
        assert_eq!((packet.length, packet.sender), (0, Some(own)));
        drop(left);
        let end = receive(right.as_fd(), &mut buffer, 0)?;
        assert_eq!((end.length, end.sender), (0, None));
        Ok(())
    }

    #[test]
    fn descriptors_travel_with_their_packet() -> Result<()> {
        let (left, right) = pair()?;
        let (read, write) = crate::sys::file::pipe()?;
        send(left.as_fd(), b"two", &[read.as_fd(), write.as_fd()], 0)?;
        drop((read, write));
        let mut buffer = [0; 8];
        let packet = receive(right.as_fd(), &mut buffer, 0)?;
        assert_eq!((packet.length, packet.truncated, packet.descriptors.len()), (3, false, 2));
        let [read, write] = packet.descriptors.as_slice() else { return Ok(()) };
        crate::sys::file::write(write.as_fd(), b"through")?;
        assert_eq!(crate::sys::file::read(read.as_fd(), &mut buffer)?, 7);
        Ok(())
    }
}
