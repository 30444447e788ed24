//! What a child tells its monitor between clone and exec: one packet each, built on the stack.
//!
//! ```text
//! 0     kind (u8)      1..5  first number (i32)      5..9  second number (i32)      9..  the call's name
//! ```

use crate::sys::socket;
use crate::sys::{Error, Result};
use std::os::fd::{BorrowedFd, OwnedFd};

/// The longest packet.
const LENGTH: usize = 64;

/// What a child says without words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The first child has made the process that will execute: its pid.
    Pid = 1,
    /// Waits at a sync point: its bit.
    AtSyncPoint = 2,
    /// The master of its terminal comes along.
    Terminal = 3,
    /// All that could fail within the plan is done; the end of the channel is now the exec's success.
    Executing = 4,
    /// A step failed: its index, the error's number and the call's name.
    Failed = 5,
}

/// A report as the monitor reads it.
#[derive(Debug)]
pub(crate) enum Report {
    Pid(i32),
    AtSyncPoint(u8),
    Terminal(OwnedFd),
    Executing,
    Failed {
        step: u32,
        errno: i32,
        call: String,
    },
    /// The channel's other end is closed everywhere.
    End,
}

/// Sends a report; the child's side, which allocates nothing.
pub(crate) fn tell(channel: BorrowedFd<'_>, kind: Kind, numbers: (i32, i32)) -> Result<()> {
    packet(channel, kind, numbers, ("", &[]))
}

/// Sends the master of a terminal.
pub(crate) fn tell_terminal(channel: BorrowedFd<'_>, master: BorrowedFd<'_>) -> Result<()> {
    packet(channel, Kind::Terminal, (0, 0), ("", &[master]))
}

/// Sends the failure of a step.
pub(crate) fn tell_failure(channel: BorrowedFd<'_>, step: u32, error: Error) -> Result<()> {
    packet(channel, Kind::Failed, (step.cast_signed(), error.errno), (error.call, &[]))
}

fn packet(
    channel: BorrowedFd<'_>,
    kind: Kind,
    (first, second): (i32, i32),
    (call, rights): (&str, &[BorrowedFd<'_>]),
) -> Result<()> {
    let mut bytes = [0_u8; LENGTH];
    let head = [kind as u8].into_iter().chain(first.to_le_bytes()).chain(second.to_le_bytes());
    let mut length = 0;
    for (place, byte) in bytes.iter_mut().zip(head.chain(call.bytes())) {
        *place = byte;
        length += 1;
    }
    socket::send(channel, bytes.get(..length).unwrap_or(&bytes), rights, 0)
}

/// Waits for the monitor's word to go on; its end ends the child.
pub(crate) fn wait(channel: BorrowedFd<'_>) -> Result<()> {
    let mut word = [0_u8; 1];
    match crate::sys::file::read(channel, &mut word)? {
        0 => Err(Error { call: "wait for the monitor", errno: libc::EPIPE }),
        _ => Ok(()),
    }
}

/// The monitor's word to go on.
pub(crate) fn go(channel: BorrowedFd<'_>) -> Result<()> {
    socket::send(channel, &[1], &[], 0)
}

/// Reads a report; none when there is none yet.
pub(crate) fn read(channel: BorrowedFd<'_>, flags: i32) -> Result<Option<Report>> {
    let mut buffer = [0_u8; LENGTH];
    let mut packet = match socket::receive(channel, &mut buffer, flags) {
        Ok(packet) => packet,
        Err(error) if error.errno == libc::EAGAIN => return Ok(None),
        Err(error) if error.errno == libc::ECONNRESET => return Ok(Some(Report::End)),
        Err(error) => return Err(error),
    };
    let bytes = buffer.get(..packet.length).unwrap_or_default();
    Ok(Some(parse(bytes, packet.descriptors.pop())))
}

fn parse(bytes: &[u8], right: Option<OwnedFd>) -> Report {
    let broken = || Report::Failed { step: u32::MAX, errno: libc::EPROTO, call: "child's report".into() };
    let Some((kind, rest)) = bytes.split_first() else { return Report::End };
    let Some((first, rest)) = rest.split_first_chunk() else { return broken() };
    let Some((second, call)) = rest.split_first_chunk() else { return broken() };
    let (first, second) = (i32::from_le_bytes(*first), i32::from_le_bytes(*second));
    match (kind, right) {
        (1, _) => Report::Pid(first),
        (2, _) => Report::AtSyncPoint(u8::try_from(first).unwrap_or(0)),
        (3, Some(master)) => Report::Terminal(master),
        (4, _) => Report::Executing,
        (5, _) => Report::Failed {
            step: first.cast_unsigned(),
            errno: second,
            call: String::from_utf8_lossy(call).into_owned(),
        },
        _ => broken(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_failure_names_its_step_and_its_call() -> Result<()> {
        let (child, monitor) = socket::pair()?;
        tell_failure(child.as_fd(), 7, Error { call: "move_mount", errno: libc::EBUSY })?;
        drop(child);
        let told = read(monitor.as_fd(), 0)?;
        assert!(
            matches!(&told, Some(Report::Failed { step: 7, errno: libc::EBUSY, call }) if call == "move_mount")
        );
        assert!(matches!(read(monitor.as_fd(), 0)?, Some(Report::End)));
        Ok(())
    }
}
